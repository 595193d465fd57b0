"""Decode a batch of windows, greedily or by sampling, each row at its own position and with its own filters.

Source: `DecodingTask` of openai-whisper's `decoding.py`. There, all rows of a batch begin and end together; here, rows
may join and leave the batch between any two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .logit_filters import apply_filter, filter_masks, log_sum_exp, next_filter

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from .aligner import Aligner
    from .logit_filters import LogitFilter
    from .prompts import Prompt
    from .slots import Kept, Slots, Window
    from .tokenizer import Tokenizer

MAX_LANGUAGE_PROBS = 5  # the most languages in a result
MIN_READ = 6  # tokens of a prompt; fewer are fed one by one, which takes no longer than to read them at once


@dataclass(frozen=True)
class DecodingTask:
    """A window to decode after a prompt.

    `language` is the language in the prompt, a placeholder if the row is to detect it among `languages` (all of the
    model's, if empty). `temperature` 0 decodes greedily or, with a `beam_size` above 1, by beam search; above 0, tokens
    are sampled with `seed`.
    """

    window: Window
    prompt: Prompt
    language: str = "en"
    languages: tuple[str, ...] = ()
    timestamps: bool = False
    temperature: float = 0.0
    seed: int = 0
    beam_size: int = 1
    patience: float = 1.0
    length_penalty: float | None = None


@dataclass(frozen=True)
class DecodingResult:
    """The result of a task: `tokens` without the prompt and <|endoftext|>, and the log probability of each.

    `avg_logprob` includes that of <|endoftext|>, if the decoder `ended` the text by itself before the maximum length.
    `language_probs` are the most probable of the languages that were allowed, if the language was detected.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    language: str
    ended: bool
    language_probs: tuple[tuple[str, float], ...] = ()


class Row:
    """One task in progress, decoded greedily or by sampling.

    It may leave its slot between any two steps and continue later in any other slot.

    A long prompt is read at once (`unread`), instead of one token a step. Then only two of its tokens are fed: first
    <|startoftranscript|>, for the probability of no speech, then the last one, after which the text begins.
    """

    def __init__(self, task: DecodingTask, tokenizer: Tokenizer) -> None:
        self.task, self.prompt, self.language = task, task.prompt, task.language
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.no_speech_prob = 0.0
        self.language_probs: tuple[tuple[str, float], ...] = ()
        self.position = 0  # of the next input token, counted from the start of the prompt
        self.finished = False
        self._has_read = False
        self.kept: Kept | None = None  # the row's self-attention keys and values, while it is in no slot
        self._tokenizer = tokenizer
        self._random = np.random.default_rng(task.seed)
        # If earlier text precedes <|startoftranscript|>, the language is detected in a separate step (see `Prompt`).
        self._detects_first = task.prompt.language_index is not None and task.prompt.sot_index > 0

    @property
    def unread(self) -> tuple[int, ...]:
        """The tokens from position 0 that are to be read before the next step; none if they are fed one by one."""
        n_left = len(self.prompt.tokens) - 1 - self.position
        # The language may be known only after the first step.
        knows_language = self.prompt.language_index is None
        return self.prompt.tokens[:-1] if knows_language and not self._has_read and n_left >= MIN_READ else ()

    def read(self) -> None:
        """Go on after the unread tokens, whose keys and values are now in the caches."""
        self._has_read = True
        last = len(self.prompt.tokens) - 1
        self.position = self.prompt.sot_index if self.position <= self.prompt.sot_index else last

    def set_input(self, slots: Slots, slot: int) -> None:
        """Set the input token for the next step, and the filter on the token that the step chooses."""
        for row in range(slots.n_beams):
            tokens = self.tokens_of(row)
            if self._detects_first:
                token = self.prompt.tokens[self.prompt.sot_index]
            elif self.position < len(self.prompt.tokens):
                token = self.prompt.tokens[self.position]
            else:
                token = tokens[-1]
            slots.set_input(slot * slots.n_beams + row, token, self.position, self._filter_after(tokens))

    def tokens_of(self, _row: int) -> Sequence[int]:
        """Return the tokens that were chosen so far, in the row of this number within the slot."""
        return self.tokens

    def take_output(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> None:
        """Read the step's output for this row and advance by one position."""
        if self._detects_first:
            self._detect_language(slots.logits(slot * slots.n_beams))
            self._detects_first = False
            return  # `position` stays 0: the next step overwrites the cache there with the prompt's first token
        if self.position == self.prompt.sot_index:
            logits = slots.logits(slot * slots.n_beams)
            self.no_speech_prob = float(np.exp(logits[self._tokenizer.no_speech] - log_sum_exp(logits)))
            if self.prompt.language_index is not None:
                self._detect_language(logits)
            if self._has_read and self.position < len(self.prompt.tokens) - 1:
                self.position = len(self.prompt.tokens) - 1
                return
        if self.position >= len(self.prompt.tokens) - 1:  # the whole prompt has been fed: this step chose a token
            self.choose(slots, slot, masks)
        self.position += 1

    def choose(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> None:
        """Append the token that the step chose, or finish."""
        token, logprob = slots.chosen(slot)[0] if self.task.temperature == 0 else self._sample(slots, slot, masks)
        self.logprobs.append(logprob)
        if token == self._tokenizer.eot:
            self.finished = True
        else:
            self.tokens.append(token)
            self.finished = len(self.tokens) >= self.prompt.sample_len

    def result(self) -> DecodingResult:
        """Return the result of a finished row."""
        # As in the reference, the average counts one more than the tokens: `logprobs` includes <|endoftext|>.
        average = sum(self.logprobs) / (len(self.tokens) + 1)
        return DecodingResult(
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs[: len(self.tokens)]),
            avg_logprob=average,
            no_speech_prob=self.no_speech_prob,
            language=self.language,
            ended=len(self.logprobs) > len(self.tokens),
            language_probs=self.language_probs,
        )

    def _filter_after(self, tokens: Sequence[int]) -> LogitFilter:
        """Return the filter on the token after these. The rules are on the whole text, so a prefix counts as chosen."""
        text = [*self.prompt.tokens[self.prompt.text_index :], *tokens]
        return next_filter(text, timestamps=self.task.timestamps, tokenizer=self._tokenizer)

    def _detect_language(self, logits: NDArray[np.float32]) -> None:
        codes = self.task.languages or tuple(self._tokenizer.languages)
        allowed = logits[[self._tokenizer.languages[code] for code in codes]]
        probabilities = np.exp(allowed - log_sum_exp(allowed))
        best = np.argsort(-probabilities, kind="stable")[:MAX_LANGUAGE_PROBS]
        self.language_probs = tuple((codes[index], float(probabilities[index])) for index in best)
        self.language = self.language_probs[0][0]
        self.prompt = self.prompt.with_language(self._tokenizer.languages[self.language])

    def _sample(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> tuple[int, float]:
        logits = apply_filter(slots.logits(slot), self._filter_after(self.tokens), masks, self._tokenizer)
        # The Gumbel-max trick: the argmax of logits plus Gumbel noise is a sample from their softmax.
        noise = self._random.gumbel(size=logits.size)
        token = int(np.argmax(logits / self.task.temperature + noise))
        return token, float(logits[token]) - log_sum_exp(logits)


class Decoder:
    """The running rows of one batch, all greedy or all of beam search. In a step they occupy the first slots."""

    def __init__(self, slots: Slots, aligner: Aligner, tokenizer: Tokenizer) -> None:
        self._slots, self._aligner, self._tokenizer = slots, aligner, tokenizer
        self._masks = filter_masks(tokenizer)
        self._running: list[Row | None] = []  # by slot; None where a row has left

    @property
    def n_slots(self) -> int:
        """The most rows in a step."""
        return self._slots.n_slots

    def step(self, rows: Sequence[Row]) -> list[Row]:
        """Run one step over exactly these rows, and return those that are finished.

        Rows of the previous step that are not among them leave their slots; a later call may bring them back.
        """
        for slot, row in enumerate(self._running):
            if row is not None and row not in rows:
                row.kept = self._slots.keep(slot, row.position)
                self._running[slot] = None
        for row in rows:
            if row in self._running:
                continue
            if None in self._running:
                slot = self._running.index(None)
                self._running[slot] = row
            else:
                slot = len(self._running)
                self._running.append(row)
            self._slots.load(slot, row.task.window, row.kept)
            row.kept = None
        running = self._close_gaps()
        self._read_prompts(running)
        for slot, row in enumerate(running):
            row.set_input(self._slots, slot)
        self._slots.step(len(running))
        for slot, row in enumerate(running):
            row.take_output(self._slots, slot, self._masks)
        self._running = [None if row.finished else row for row in running]
        return [row for row in running if row.finished]

    def _read_prompts(self, running: Sequence[Row]) -> None:
        groups: dict[Hashable, list[int]] = {}
        for slot, row in enumerate(running):
            if row.unread:
                key = row.task.window.shape if self._aligner.reads_together else slot
                groups.setdefault(key, []).append(slot)
        for slots in groups.values():
            rows = [running[slot] for slot in slots]
            prompts = self._aligner.read([row.task.window for row in rows], [row.unread for row in rows])
            for slot, row, kept in zip(slots, rows, prompts, strict=True):
                self._slots.write(slot, kept)
                row.read()

    def _close_gaps(self) -> list[Row]:
        """Move rows from the end into gaps that no new row filled, because a step runs over the first slots only."""
        while None in self._running:
            last = self._running.pop()
            if last is not None:
                gap = self._running.index(None)
                self._slots.move(len(self._running), gap, last.position)
                self._running[gap] = last
        return [row for row in self._running if row is not None]
