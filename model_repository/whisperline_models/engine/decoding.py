"""Decodes windows row by row: greedy or sampled, each row at its own position and under its own filters.

Source: `DecodingTask` of openai-whisper's `decoding.py`, whose greedy decoder and filters these are. There all rows of
a batch begin and end together; here they come and go between any two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .logit_filters import apply_filter, filter_masks, log_sum_exp, next_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .prompts import Prompt
    from .slots import Kept, Slots, Window
    from .tokenizer import Tokenizer


@dataclass(frozen=True)
class DecodingTask:
    """A window to decode after a prompt; `language` is the one in the prompt, unless that is to be detected.

    `temperature` 0 is greedy; above it tokens are drawn with `seed`.
    """

    window: Window
    prompt: Prompt
    language: str = "en"
    timestamps: bool = False
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class DecodingResult:
    """What came of a task: `tokens` without prompt and end, and a logarithmic probability for each.

    `avg_logprob` counts the end, too. `ended` is False where the text was cut for its length.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    language: str
    ended: bool


class Row:
    """One task under way. It may leave its slot between any two steps, and go on later in any other."""

    def __init__(self, task: DecodingTask, tokenizer: Tokenizer) -> None:
        self.task, self.prompt, self.language = task, task.prompt, task.language
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.no_speech_prob = 0.0
        self.position = 0  # of the token that is fed next, in the prompt and the text after it
        self.finished = False
        self.kept: Kept | None = None  # the row's own keys and values, while it is in no slot
        self._tokenizer = tokenizer
        self._random = np.random.default_rng(task.seed)
        # Where earlier text stands before the start, the language is detected in a step of its own (see `Prompt`).
        self._detects_first = task.prompt.language_index is not None and task.prompt.sot_index > 0

    def set_input(self, slots: Slots, slot: int) -> None:
        """Write what the next step feeds this row, and what the row may choose after it."""
        if self._detects_first:
            token = self.prompt.tokens[self.prompt.sot_index]
        elif self.position < len(self.prompt.tokens):
            token = self.prompt.tokens[self.position]
        else:
            token = self.tokens[-1]
        filtered = next_filter(self.tokens, timestamps=self.task.timestamps, tokenizer=self._tokenizer)
        slots.set_input(slot, token, self.position, filtered)

    def take_output(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> None:
        """Take what the step gave for this row, and go on by one position."""
        if self._detects_first:
            self._detect_language(slots.logits(slot))
            self._detects_first = False
            return  # the prompt begins at position 0, which the next step overwrites
        if self.position == self.prompt.sot_index:
            logits = slots.logits(slot)
            self.no_speech_prob = float(np.exp(logits[self._tokenizer.no_speech] - log_sum_exp(logits)))
            if self.prompt.language_index is not None:
                self._detect_language(logits)
        if self.position >= len(self.prompt.tokens) - 1:  # the whole prompt was fed: this step chose a token
            token, logprob = slots.chosen(slot) if self.task.temperature == 0 else self._sample(slots, slot, masks)
            self.logprobs.append(logprob)
            if token == self._tokenizer.eot:
                self.finished = True
            else:
                self.tokens.append(token)
                self.finished = len(self.tokens) >= self.prompt.sample_len
        self.position += 1

    def result(self) -> DecodingResult:
        """Return what came of a finished row."""
        # `logprobs` has the end's too, and so the average is over one more than the tokens, as in the reference.
        average = sum(self.logprobs) / (len(self.tokens) + 1)
        ended = len(self.tokens) < self.prompt.sample_len
        logprobs = tuple(self.logprobs[: len(self.tokens)])
        return DecodingResult(tuple(self.tokens), logprobs, average, self.no_speech_prob, self.language, ended)

    def _detect_language(self, logits: NDArray[np.float32]) -> None:
        codes, ids = zip(*self._tokenizer.languages.items(), strict=True)
        self.language = codes[int(logits[list(ids)].argmax())]
        self.prompt = self.prompt.with_language(self._tokenizer.languages[self.language])

    def _sample(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> tuple[int, float]:
        filtered = next_filter(self.tokens, timestamps=self.task.timestamps, tokenizer=self._tokenizer)
        logits = apply_filter(slots.logits(slot), filtered, masks, self._tokenizer)
        # Gumbel-max: the largest of logits with Gumbel noise is a draw from their softmax.
        noise = self._random.gumbel(size=logits.size)
        token = int(np.argmax(logits / self.task.temperature + noise))
        return token, float(logits[token]) - log_sum_exp(logits)


class Decoder:
    """The running rows of one batch. During a step they are in the first slots, without a gap."""

    def __init__(self, slots: Slots, tokenizer: Tokenizer) -> None:
        self._slots = slots
        self._tokenizer = tokenizer
        self._masks = filter_masks(tokenizer)
        self._running: list[Row | None] = []  # by slot; None is the gap of a row that has left

    def step(self, rows: Sequence[Row]) -> list[Row]:
        """Choose the next token of exactly these rows; returns those that are finished.

        Rows of the step before that are not among them leave their slots and may come back.
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
        for slot, row in enumerate(running):
            row.set_input(self._slots, slot)
        self._slots.step(len(running))
        for slot, row in enumerate(running):
            row.take_output(self._slots, slot, self._masks)
        self._running = [None if row.finished else row for row in running]
        return [row for row in running if row.finished]

    def _close_gaps(self) -> list[Row]:
        """Move rows from the end into the gaps that no new row took: a step runs over the first slots only."""
        while None in self._running:
            last = self._running.pop()
            if last is not None:
                gap = self._running.index(None)
                self._slots.move(len(self._running), gap, last.position)
                self._running[gap] = last
        return [row for row in self._running if row is not None]
