# ruff: noqa: RUF001 - the punctuation of Chinese and Japanese is meant
"""Word times from cross-attention: median filter and dynamic time warping, as in openai-whisper's `timing.py`."""

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


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text, its leading space included; times in seconds of the window."""

    word: str
    start_s: float
    end_s: float
    confidence: float


def median_of_7(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The running median of width 7 over the last axis, the ends reflected; short input comes back as it is.

    Seven neighbours are two triples and one: every triple is sorted once, for both windows that it stands in.
    """
    width = values.shape[-1]
    if width <= 3:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(3, 3)], mode="reflect")
    least, middle, most = _sorted_of_3(padded[..., :-2], padded[..., 1:-1], padded[..., 2:])
    a, b, c = (triples[..., :width] for triples in (least, middle, most))
    d, e, f = (triples[..., 4:] for triples in (least, middle, most))
    lower, upper = np.minimum, np.maximum
    third = lower(lower(c, f), lower(upper(b, d), upper(a, e)))  # of the six
    fourth = upper(upper(a, d), upper(lower(c, e), lower(b, f)))
    return upper(third, lower(fourth, padded[..., 3:-3]))


def _sorted_of_3(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    middle = np.minimum(high, c)
    return [np.minimum(low, middle), np.maximum(low, middle), np.maximum(high, c)]


def token_starts(weights: NDArray[np.float32], n_prompt: int) -> NDArray[np.float64]:
    """Where each token after the prompt begins, in seconds.

    `weights` (heads, tokens, frames) is the attention of the alignment heads over the frames that hold audio,
    for prompt, no-timestamps, text and end. The attention at a token tells where the next one is heard: so the
    rows from no-timestamps to the last of the text stand for the text and its end.
    """
    matrix = np.zeros((weights.shape[1] - n_prompt - 1, weights.shape[2]), np.float32)
    for head in weights:  # one by one: what is worked on stays in the processor's cache
        shares = head / np.maximum(head.sum(axis=1, keepdims=True), 1e-12)  # 0 where all is behind the audio
        spread = shares.std(axis=0)
        normal = (shares - shares.mean(axis=0)) / np.maximum(spread, 1e-12)
        matrix += median_of_7(normal[n_prompt:-1])
    first, _ = warp(-matrix.astype(np.float64))
    starts: NDArray[np.float64] = first * FRAME_S
    return starts


def warp(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest monotonic path through a cost matrix (N, M): the first and the last column of each row (N).

    A row at a time. Whoever comes to a cell from above pays the row's costs from there on; with `sums`, the row's
    costs up to a column, the cheapest way to a column is its sum and the least of what was paid above less the sum
    before that cell: a running minimum instead of a walk from column to column.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)  # of the cheapest way to each cell, from row and column -1 on
    total[0, 0] = 0.0
    sums = np.cumsum(cost, axis=1)
    for row, (costs, upto) in enumerate(zip(cost, sums, strict=True)):
        above = np.minimum(total[row, :-1], total[row, 1:])
        total[row + 1, 1:] = upto + np.minimum.accumulate(above - (upto - costs))
    both, above, left = total[:-1, :-1], total[:-1, 1:], total[1:, :-1]
    entered = np.maximum.accumulate(np.where(left <= np.minimum(both, above), 0, np.arange(m)), axis=1)
    first, last = np.empty(n, np.int64), np.empty(n, np.int64)
    column = m - 1
    for row in reversed(range(n)):
        last[row] = column
        column = first[row] = entered[row, column]
        column -= bool(both[row, column] < above[row, column])
    return first, last


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
