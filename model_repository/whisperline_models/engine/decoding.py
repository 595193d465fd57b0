"""Decodes windows in one batch, row by row: greedy or sampled, each row at its own position and rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .slots import Slots
    from .vocabulary import Vocabulary

    Window = Mapping[str, NDArray[np.float32]]

SAMPLE_LENGTH = 224  # tokens at most in a window, half of the text context


@dataclass(frozen=True)
class Task:
    """A window to decode: `window` as `Slots.load` takes it; `language` None means detect it.

    `temperature` 0 is greedy; above it tokens are drawn with `seed`.
    """

    window: Window
    language: str | None
    timed: bool
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Decoded:
    """What came of a task: `tokens` without prompt and end, and a logarithmic probability for each.

    `ended` tells a text that came to its end from one that was cut at `SAMPLE_LENGTH`.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    avg_logprob: float
    no_speech_prob: float
    language: str
    ended: bool


@dataclass
class _Row:
    task: Task
    index: int
    prompt: list[int]
    random: np.random.Generator
    language: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    no_speech_prob: float = 0.0
    position: int = 0
    finished: bool = False

    @property
    def in_prompt(self) -> bool:
        return self.position < len(self.prompt) - 1

    def next_input(self) -> int:
        return self.prompt[self.position] if self.position < len(self.prompt) else self.tokens[-1]


class Decoder:
    """Runs tasks through the slots; a finished row leaves at once and the next waiting one takes its place."""

    def __init__(self, slots: Slots, vocabulary: Vocabulary, n_slots: int) -> None:
        self._slots, self._vocabulary, self._n_slots = slots, vocabulary, n_slots
        self._masks = rules.phase_masks(vocabulary)

    def decode(self, tasks: Sequence[Task]) -> list[Decoded]:
        """Decode all tasks; results are in their order."""
        waiting = [self._row(task, index) for index, task in enumerate(tasks)][::-1]
        running: list[_Row] = []
        results: dict[int, Decoded] = {}
        while waiting or running:
            while waiting and len(running) < self._n_slots:
                row = waiting.pop()
                self._slots.load(len(running), row.task.window)
                running.append(row)
            self._step(running)
            results.update((row.index, _decoded(row)) for row in running if row.finished)
            self._leave(running)
        return [results[index] for index in range(len(tasks))]

    def force(self, window: Window, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits (N, V) after each of these tokens, fed one by one, before any rule."""
        self._slots.load(0, window)
        logits = []
        for position, token in enumerate(tokens):
            self._slots.inputs["token"][0], self._slots.inputs["position"][0] = token, position
            self._slots.step(1)
            logits.append(self._logits(0).copy())
        return np.stack(logits)

    def _row(self, task: Task, index: int) -> _Row:
        prompt = _prompt(task, self._vocabulary)
        return _Row(task, index, prompt, np.random.default_rng(task.seed), task.language or "en")

    def _step(self, running: list[_Row]) -> None:
        for slot, row in enumerate(running):
            self._constrain(slot, row)
        self._slots.step(len(running))
        for slot, row in enumerate(running):
            self._advance(slot, row)

    def _constrain(self, slot: int, row: _Row) -> None:
        constraint = rules.constrain(row.tokens, timed=row.task.timed, vocabulary=self._vocabulary)
        inputs = self._slots.inputs
        inputs["token"][slot], inputs["position"][slot] = row.next_input(), row.position
        inputs["phase"][slot], inputs["timed"][slot] = constraint.phase, constraint.timed
        inputs["time_from"][slot], inputs["time_to"][slot] = constraint.time_from, constraint.time_to

    def _advance(self, slot: int, row: _Row) -> None:
        if row.position == 0:
            self._hear_start(slot, row)
        if not row.in_prompt:
            token, logprob = self._choose(slot, row)
            row.logprobs.append(logprob)
            row.finished = token == self._vocabulary.end
            if not row.finished:
                row.tokens.append(token)
            row.finished |= len(row.tokens) >= SAMPLE_LENGTH
        row.position += 1

    def _hear_start(self, slot: int, row: _Row) -> None:
        """Read no-speech and language off the logits after the start token."""
        logits = self._logits(slot)
        row.no_speech_prob = float(np.exp(logits[self._vocabulary.no_speech] - rules.log_sum_exp(logits)))
        if self._vocabulary.is_multilingual and row.task.language is None:
            codes = list(self._vocabulary.languages)
            heard = logits[[self._vocabulary.languages[code] for code in codes]]
            row.language = codes[int(heard.argmax())]
            row.prompt[1] = self._vocabulary.languages[row.language]

    def _choose(self, slot: int, row: _Row) -> tuple[int, float]:
        if row.task.temperature == 0:
            outputs = self._slots.outputs
            return int(outputs["chosen"][slot]), float(outputs["logprob"][slot])
        constraint = rules.constrain(row.tokens, timed=row.task.timed, vocabulary=self._vocabulary)
        logits = rules.apply(self._logits(slot), constraint, self._masks, self._vocabulary)
        noise = row.random.gumbel(size=logits.size)  # the largest of noisy logits is a draw from their softmax
        token = int(np.argmax(logits / row.task.temperature + noise))
        return token, float(logits[token]) - rules.log_sum_exp(logits)

    def _logits(self, slot: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._slots.outputs["logits"][slot]
        return logits

    def _leave(self, running: list[_Row]) -> None:
        """Take finished rows out; the last running row moves into the gap."""
        for slot in reversed(range(len(running))):
            if running[slot].finished:
                last = running.pop()
                if slot < len(running):
                    self._slots.move(len(running), slot)
                    running[slot] = last


def _prompt(task: Task, vocabulary: Vocabulary) -> list[int]:
    prompt = [vocabulary.start]
    if vocabulary.is_multilingual:
        prompt += [vocabulary.languages[task.language or "en"], vocabulary.transcribe]
    return prompt if task.timed else [*prompt, vocabulary.no_timestamps]


def _decoded(row: _Row) -> Decoded:
    # logprobs include the end's: the mean is over one more than the tokens, as in the reference
    mean = sum(row.logprobs) / (len(row.tokens) + 1)
    return Decoded(
        tuple(row.tokens),
        tuple(row.logprobs[: len(row.tokens)]),
        mean,
        row.no_speech_prob,
        row.language,
        len(row.tokens) < SAMPLE_LENGTH,
    )
