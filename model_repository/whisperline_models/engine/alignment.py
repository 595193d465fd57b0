# ruff: noqa: RUF001 - the punctuation of Chinese and Japanese is meant
"""Word times from cross-attention: median filter and dynamic time warping, as in the reference's `timing.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FRAME_S = 0.02  # seconds in one encoder frame
_LONGEST_MEDIAN_S = 0.7
_SENTENCE_END = ".。!！?？"
_OPENING = "\"'“¿([{-"
_CLOSING = "\"'.。,，!！?？:：”)]}、"
# exchanges after which the fourth of seven values is their median (N. Devillard, "Fast median search")
_MEDIAN_OF_7 = ((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4))


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text, its leading space included; times in seconds of the window."""

    word: str
    start_s: float
    end_s: float
    confidence: float


def median_of_7(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The running median of width 7 over the last axis, the ends reflected; short input comes back as it is."""
    if values.shape[-1] <= 3:
        return values
    padding = [(0, 0)] * (values.ndim - 1) + [(3, 3)]
    padded, width = np.pad(values, padding, mode="reflect"), values.shape[-1]
    lanes = [padded[..., i : i + width] for i in range(7)]
    for low, high in _MEDIAN_OF_7:
        lanes[low], lanes[high] = np.minimum(lanes[low], lanes[high]), np.maximum(lanes[low], lanes[high])
    return lanes[3]


def token_starts(weights: NDArray[np.float32], n_prompt: int) -> NDArray[np.float64]:
    """Where each token after the prompt begins, in seconds.

    `weights` (heads, tokens, frames) is the attention of the alignment heads over the frames that hold audio,
    for prompt, no-timestamps, text and end. The attention at a token tells where the next one is heard: so the
    rows from no-timestamps to the last of the text stand for the text and its end.
    """
    weights = weights / weights.sum(axis=-1, keepdims=True)
    spread = weights.std(axis=-2, keepdims=True)
    normal = (weights - weights.mean(axis=-2, keepdims=True)) / np.maximum(spread, 1e-12)
    matrix = median_of_7(normal).mean(axis=0)
    tokens, frames = warp(-matrix[n_prompt:-1].astype(np.float64))
    jumps = np.diff(tokens, prepend=-1).astype(bool)
    starts: NDArray[np.float64] = frames[jumps] * FRAME_S
    return starts


def warp(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest monotonic path through a cost matrix (N, M): its row and column indices.

    Computed by anti-diagonals, each of which depends on the two before it alone.
    """
    n, m = cost.shape
    padded = np.full((n, m + n), np.inf)
    padded[:, :m] = cost
    diagonals = padded.reshape(-1)[: n * (m + n - 1)].reshape(n, -1).T.copy()  # (d, i): cost[i, d - i]
    before, last = np.full(n + 1, np.inf), np.full(n + 1, np.inf)  # the two diagonals before, from row -1 on
    before[0] = 0.0
    trace = np.empty(diagonals.shape, np.int8)
    for index, costs in enumerate(diagonals):
        both, row, column = before[:-1], last[:-1], last[1:]
        by_both = both < np.minimum(row, column)
        by_row = (row < both) & (row < column)
        before, last = last, np.full(n + 1, np.inf)
        last[1:] = costs + np.where(by_both, both, np.where(by_row, row, column))
        trace[index] = np.where(by_both, 0, np.where(by_row, 1, 2))
    return _walk_back(trace.tolist(), n, m)


def _walk_back(trace: list[list[int]], n: int, m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From the last cell to the first: 0 leads to the row and column before, 1 to the row, 2 to the column."""
    i, j = n - 1, m - 1
    path = [(i, j)]
    while i > 0 or j > 0:
        step = 2 if i == 0 else 1 if j == 0 else trace[i + j][i]
        i, j = i - (step != 2), j - (step != 1)
        path.append((i, j))
    rows, columns = np.array(path[::-1], np.int64).T
    return rows, columns


def time_words(
    words: Sequence[tuple[str, Sequence[int]]],
    starts_s: NDArray[np.float64],
    probabilities: Sequence[float],
    *,
    spaced: bool = True,
) -> list[Word]:
    """Words with times from the starts of their tokens (one more than tokens), punctuation merged into them.

    In a language written with spaces the words come back as spaces divide them, "d'accord" as one.
    """
    bounds = np.cumsum([0, *(len(tokens) for _, tokens in words)])
    timed = [
        Word(text, float(starts_s[a]), float(starts_s[b]), float(np.mean(probabilities[a:b])))
        for (text, _), a, b in zip(words, bounds[:-1], bounds[1:], strict=True)
    ]
    durations = [w.end_s - w.start_s for w in timed if w.end_s > w.start_s]
    longest_s = 2 * min(_LONGEST_MEDIAN_S, float(np.median(durations))) if durations else 0.0
    merged = _shorten_first(_merge_punctuation(_shorten_at_sentences(timed, longest_s)), longest_s)
    return _join_unspaced(merged) if spaced else merged


def _shorten_at_sentences(words: list[Word], longest_s: float) -> list[Word]:
    """A pause between sentences belongs to no word: cut what is too long beside a sentence's end."""
    result = words[:1]
    for previous, word in pairwise(words):
        if word.end_s - word.start_s <= longest_s:
            result.append(word)
        elif word.word in _SENTENCE_END:
            result.append(replace(word, end_s=word.start_s + longest_s))
        elif previous.word in _SENTENCE_END:
            result.append(replace(word, start_s=word.end_s - longest_s))
        else:
            result.append(word)
    return result


def _shorten_first(words: list[Word], longest_s: float) -> list[Word]:
    """The silence before speech is not part of the first word."""
    if words and words[0].end_s - words[0].start_s > longest_s:
        return [replace(words[0], start_s=words[0].end_s - longest_s), *words[1:]]
    return words


def _merge_punctuation(words: list[Word]) -> list[Word]:
    """Opening marks join the word after them, closing marks the word before; times are the word's."""
    merged: list[Word] = []
    for word in words:
        if merged and word.word in _CLOSING and not merged[-1].word.endswith(" "):
            merged[-1] = replace(merged[-1], word=merged[-1].word + word.word)
        elif merged and merged[-1].word.startswith(" ") and merged[-1].word.strip() in _OPENING:
            merged[-1] = replace(word, word=merged[-1].word + word.word)
        else:
            merged.append(word)
    return merged


def _join_unspaced(words: list[Word]) -> list[Word]:
    """A piece without a space before it belongs to the word before."""
    joined: list[Word] = []
    for word in words:
        if joined and not word.word.startswith(" "):
            previous = joined[-1]
            lengths = [len(previous.word), len(word.word)]
            confidence = float(np.average([previous.confidence, word.confidence], weights=lengths))
            joined[-1] = Word(previous.word + word.word, previous.start_s, word.end_s, confidence)
        else:
            joined.append(word)
    return joined
