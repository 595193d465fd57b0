"""Decodes windows row by row: greedy or sampled, each row at its own position and under its own rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .prompts import Prompt
    from .slots import Kept, Slots, Window
    from .vocabulary import Vocabulary


@dataclass(frozen=True)
class Task:
    """A window to decode after a prompt; the language in the prompt is `language` unless it is to be detected.

    `temperature` 0 is greedy; above it tokens are drawn with `seed`.
    """

    window: Window
    prompt: Prompt
    language: str = "en"
    timed: bool = False
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Decoded:
    """What came of a task: `tokens` without prompt and end, and a logarithmic probability for each.

    `ended` tells a text that came to its end from one that was cut for its length.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    language: str
    ended: bool


class Row:
    """One task under way. It may leave its slot between any two steps and go on later, in any other."""

    def __init__(self, task: Task, vocabulary: Vocabulary) -> None:
        self.task, self.prompt, self.language = task, task.prompt, task.language
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.no_speech_prob = 0.0
        self.position = 0
        self.finished = False
        self.kept: Kept | None = None  # what its caches held when it left its slot
        self._random = np.random.default_rng(task.seed)
        self._vocabulary = vocabulary
        # before earlier text the language is heard with the start token alone, as the reference does
        self._hears_first = task.prompt.language_index is not None and task.prompt.sot_index > 0

    def next_input(self) -> int:
        """The token to feed at `position`."""
        if self._hears_first:
            return self.prompt.tokens[self.prompt.sot_index]
        if self.position < len(self.prompt.tokens):
            return self.prompt.tokens[self.position]
        return self.tokens[-1]

    def constraint(self) -> rules.Constraint:
        """What may be chosen after `next_input`."""
        return rules.constrain(self.tokens, timed=self.task.timed, vocabulary=self._vocabulary)

    def advance(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> None:
        """Take what the step over `slots` gave for this row."""
        if self._hears_first:
            self._hear_language(slots.logits(slot))
            self._hears_first = False
            return
        if self.position == self.prompt.sot_index:
            self._hear_start(slots.logits(slot))
        if self.position >= len(self.prompt.tokens) - 1:
            self._take(*self._choose(slots, slot, masks))
        self.position += 1

    def decoded(self) -> Decoded:
        """The outcome of a finished row."""
        # logprobs include the end's: the mean is over one more than the tokens, as in the reference
        mean = sum(self.logprobs) / (len(self.tokens) + 1)
        ended = len(self.tokens) < self.prompt.sample_length
        logprobs = tuple(self.logprobs[: len(self.tokens)])
        return Decoded(tuple(self.tokens), logprobs, mean, self.no_speech_prob, self.language, ended)

    def _hear_start(self, logits: NDArray[np.float32]) -> None:
        self.no_speech_prob = float(np.exp(logits[self._vocabulary.no_speech] - rules.log_sum_exp(logits)))
        if self.prompt.language_index is not None:
            self._hear_language(logits)

    def _hear_language(self, logits: NDArray[np.float32]) -> None:
        codes = list(self._vocabulary.languages)
        ids = [self._vocabulary.languages[code] for code in codes]
        self.language = codes[int(logits[ids].argmax())]
        self.prompt = self.prompt.with_language(self._vocabulary.languages[self.language])

    def _choose(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> tuple[int, float]:
        if self.task.temperature == 0:
            return slots.chosen(slot)
        logits = rules.apply(slots.logits(slot), self.constraint(), masks, self._vocabulary)
        noise = self._random.gumbel(size=logits.size)  # the largest of noisy logits is a draw from their softmax
        token = int(np.argmax(logits / self.task.temperature + noise))
        return token, float(logits[token]) - rules.log_sum_exp(logits)

    def _take(self, token: int, logprob: float) -> None:
        self.logprobs.append(logprob)
        self.finished = token == self._vocabulary.end
        if not self.finished:
            self.tokens.append(token)
        self.finished |= len(self.tokens) >= self.prompt.sample_length


class Decoder:
    """The running rows, in the first slots during a step; who leaves makes a gap, for who comes next."""

    def __init__(self, slots: Slots, vocabulary: Vocabulary) -> None:
        self._slots, self._vocabulary = slots, vocabulary
        self._masks = rules.phase_masks(vocabulary)
        self._running: list[Row | None] = []

    def step(self, rows: Sequence[Row]) -> list[Row]:
        """Choose the next token of exactly these rows; returns those that are finished.

        Rows of the step before that are not among them leave their slots and may come back.
        """
        for slot, row in enumerate(self._running):
            if row is not None and row not in rows:
                self._leave(slot, row)
        for row in rows:
            if row not in self._running:
                self._enter(row)
        running = self._close_gaps()
        for slot, row in enumerate(running):
            self._slots.feed(slot, row.next_input(), row.position, row.constraint())
        self._slots.step(len(running))
        for slot, row in enumerate(running):
            row.advance(self._slots, slot, self._masks)
        self._running = [None if row.finished else row for row in running]
        return [row for row in running if row.finished]

    def decode(self, tasks: Sequence[Task]) -> list[Decoded]:
        """Decode tasks, without guards and lanes; results are in their order."""
        rows = [Row(task, self._vocabulary) for task in tasks]
        while unfinished := [row for row in rows if not row.finished]:
            self.step(unfinished[: self._slots.n_slots])
        return [row.decoded() for row in rows]

    def force(self, window: Window, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits (N, V) after each of these tokens, fed one by one, before any rule."""
        for slot, row in enumerate(self._running):
            if row is not None:
                self._leave(slot, row)
        self._slots.load(0, window)
        logits = []
        for position, token in enumerate(tokens):
            self._slots.feed(0, token, position, rules.constrain([], timed=False, vocabulary=self._vocabulary))
            self._slots.step(1)
            logits.append(self._slots.logits(0).copy())
        return np.stack(logits)

    def _enter(self, row: Row) -> None:
        slot = self._running.index(None) if None in self._running else len(self._running)
        self._slots.load(slot, row.task.window, row.kept)
        row.kept = None
        self._running[slot : slot + 1] = [row]

    def _leave(self, slot: int, row: Row) -> None:
        row.kept = self._slots.keep(slot, row.position)
        self._running[slot] = None

    def _close_gaps(self) -> list[Row]:
        """Move rows from behind into the gaps that nobody took."""
        while None in self._running:
            last = self._running.pop()
            if last is not None:
                gap = self._running.index(None)
                self._slots.move(len(self._running), gap, last.position)
                self._running[gap] = last
        return [row for row in self._running if row is not None]
