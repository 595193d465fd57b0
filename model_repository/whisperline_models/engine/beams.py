"""Beam search over one window: several hypotheses of its text, each in a row of its own.

Source: `BeamSearchDecoder` and `MaximumLikelihoodRanker` of openai-whisper's `decoding.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .decoding import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .decoding import DecodingTask
    from .slots import Slots
    from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Hypothesis:
    """A text so far: its tokens, the log probability of each, their sum as the reference adds it, and its row.

    If it has ended, `logprobs` includes <|endoftext|>, and `tokens` does not.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: np.float32
    row: int

    def extended(self, token: int, logprob: float) -> Hypothesis:
        """Return this hypothesis with one more token."""
        total = np.float32(self.total + np.float32(logprob))
        return Hypothesis((*self.tokens, token), (*self.logprobs, logprob), total, self.row)


class BeamRow(Row):
    """One task in progress, decoded by beam search: its hypotheses are in the rows of one slot."""

    def __init__(self, task: DecodingTask, tokenizer: Tokenizer) -> None:
        super().__init__(task, tokenizer)
        self._hypotheses = [Hypothesis((), (), np.float32(0), row=0)]  # the most probable first
        self._ended: list[Hypothesis] = []
        # The text tokens whose keys and values are in the caches of each row. All rows are fed the prompt.
        self._fed: dict[int, tuple[int, ...]] = {}

    def tokens_of(self, row: int) -> Sequence[int]:
        """Return the tokens of the hypothesis in a row. A row without one is fed the tokens of the first."""
        return next((each.tokens for each in self._hypotheses if each.row == row), self._hypotheses[0].tokens)

    def choose(self, slots: Slots, slot: int, masks: NDArray[np.float32]) -> None:  # noqa: ARG002 - of sampling only
        """Extend the hypotheses by the tokens that the step found best, and keep the most probable ones."""
        size, eot = self.task.beam_size, self._tokenizer.eot
        first_row = slot * slots.n_beams
        candidates = [
            hypothesis.extended(token, logprob)
            for hypothesis in self._hypotheses
            for token, logprob in slots.chosen(first_row + hypothesis.row)[: size + 1]
        ]
        candidates.sort(key=lambda candidate: -candidate.total)  # stable, as in the reference
        n_wanted = max(1, round(size * self.task.patience))
        kept: list[Hypothesis] = []
        for candidate in candidates:
            *tokens, token = candidate.tokens
            if token != eot:
                kept.append(candidate)
            elif len(self._ended) < n_wanted:
                self._ended.append(Hypothesis(tuple(tokens), candidate.logprobs, candidate.total, candidate.row))
            if len(kept) == size:
                break
        if len(self._ended) >= n_wanted or len(kept[0].tokens) >= self.prompt.sample_len:
            self._finish(kept)
        else:
            self._hypotheses = self._place(kept, slots, first_row)

    def _place(self, kept: Sequence[Hypothesis], slots: Slots, first_row: int) -> list[Hypothesis]:
        """Give each hypothesis a row, and the row the keys and values of its tokens. Returns them with their rows.

        The first hypothesis that continues a row stays in it. Another one takes a row that none continues: what
        follows the tokens that both have in common is copied there.
        """
        for row in range(slots.n_beams):
            fed = next((each.tokens for each in self._hypotheses if each.row == row), None)
            if fed is not None:
                self._fed[row] = fed
        free = [row for row in range(slots.n_beams) if row not in {hypothesis.row for hypothesis in kept}]
        taken: set[int] = set()
        placed: list[Hypothesis] = []
        for hypothesis in kept:
            row = source = hypothesis.row
            if source in taken:
                row = free.pop(0)
                common = _n_common(self._fed.get(row, ()), self._fed[source])
                begin = len(self.prompt.tokens) + common
                slots.copy(first_row + source, first_row + row, begin, self.position + 1)
                self._fed[row] = self._fed[source]
            taken.add(row)
            placed.append(Hypothesis(hypothesis.tokens, hypothesis.logprobs, hypothesis.total, row))
        return placed

    def _finish(self, unfinished: Sequence[Hypothesis]) -> None:
        """Choose the text: of those that ended and, if they are too few, also of the others, the best by its score."""
        found = [*self._ended, *unfinished][: max(len(self._ended), self.task.beam_size)]
        best = max(found, key=self._score)  # the first of several
        self.tokens, self.logprobs = list(best.tokens), list(best.logprobs)
        self.finished = True

    def _score(self, hypothesis: Hypothesis) -> float:
        """Return the log probability by the length of the text, or by a power of it given by the length penalty."""
        length, exponent = len(hypothesis.tokens), self.task.length_penalty
        return float(hypothesis.total) / (max(1, length) if exponent is None else ((5 + length) / 6) ** exponent)


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which both begin."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
