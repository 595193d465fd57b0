"""Which token may come next: suppression and timestamp rules of the reference's `decoding.py`.

The exported decoder applies them inside its graph; the same here in NumPy serves sampling, and the tests
hold the graph against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .vocabulary import Vocabulary

NEVER = np.float32(-1e9)  # added to the logit of a forbidden token
MAX_INITIAL_TIMESTAMP = 50  # in steps of 20 ms: a text begins within the first second


class Phase(IntEnum):
    """Which of the masks over the vocabulary a row is under."""

    UNTIMED_FIRST = 0
    UNTIMED = 1
    TIMED_FIRST = 2  # a timestamp must come
    TIMED = 3
    TIMED_CLOSING = 4  # a timestamp was just set after text: its pair or the end must come


@dataclass(frozen=True)
class Constraint:
    """What one row may choose at one step: a mask, and the timestamps from `time_from` to `time_to`."""

    phase: Phase
    time_from: int
    time_to: int

    @property
    def timed(self) -> bool:
        """Whether timestamps are asked for."""
        return self.phase >= Phase.TIMED_FIRST


def constrain(sampled: Sequence[int], *, timed: bool, vocabulary: Vocabulary) -> Constraint:
    """The constraint on the token after `sampled`, the tokens since the prompt."""
    begin, last = vocabulary.timestamp_begin, vocabulary.n_vocab - 1
    if not timed:
        return Constraint(Phase.UNTIMED if sampled else Phase.UNTIMED_FIRST, begin, last)
    if not sampled:
        return Constraint(Phase.TIMED_FIRST, begin, begin + MAX_INITIAL_TIMESTAMP)
    last_is_time = sampled[-1] >= begin
    previous_is_time = len(sampled) < 2 or sampled[-2] >= begin
    newest = next((t for t in reversed(sampled) if t >= begin), begin - 1)
    if not last_is_time:
        return Constraint(Phase.TIMED, newest + 1, last)
    if previous_is_time:
        return Constraint(Phase.TIMED, begin, begin - 1)
    return Constraint(Phase.TIMED_CLOSING, newest, last)


def phase_masks(vocabulary: Vocabulary) -> NDArray[np.float32]:
    """What each phase adds to the logits: (phases, V), 0 or `NEVER`."""
    masks = np.zeros((len(Phase), vocabulary.n_vocab), np.float32)
    masks[:, list(vocabulary.suppressed)] = NEVER
    masks[Phase.UNTIMED_FIRST, list(vocabulary.blank)] = NEVER
    masks[Phase.TIMED_FIRST :, vocabulary.no_timestamps] = NEVER
    masks[Phase.TIMED_FIRST, : vocabulary.timestamp_begin] = NEVER
    masks[Phase.TIMED_CLOSING, : vocabulary.end] = NEVER
    return masks


def apply(
    logits: NDArray[np.float32], constraint: Constraint, masks: NDArray[np.float32], vocabulary: Vocabulary
) -> NDArray[np.float32]:
    """The logits (V) of one row under its constraint: forbidden tokens are near `NEVER`."""
    begin = vocabulary.timestamp_begin
    masked: NDArray[np.float32] = logits + masks[constraint.phase]
    masked[begin : max(begin, constraint.time_from)] = NEVER
    masked[max(begin, constraint.time_to + 1) :] = NEVER
    if constraint.timed and log_sum_exp(masked[begin:]) > masked[:begin].max():
        masked[:begin] = NEVER
    return masked


def log_sum_exp(values: NDArray[np.float32]) -> float:
    """The logarithm of the sum of exponentials of a vector."""
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))
