# ruff: noqa: RUF001 - the punctuation of Chinese and Japanese is meant
"""Find word times from cross-attention, with a median filter and dynamic time warping.

Source: `find_alignment`, `dtw`, `merge_punctuations` and `add_word_timestamps` of openai-whisper's `timing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FRAME_S = 0.02  # seconds in one encoder frame
_LONGEST_MEDIAN_S = 0.7  # cap on the median word duration, from which the longest plausible word is derived
_SENTENCE_END = ".。!！?？"
_OPENING = "\"'“¿([{-"
_CLOSING = "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True)
class WordTiming:
    """A word as in the text, with its leading space. Times are in seconds from the start of the window."""

    word: str
    start_s: float
    end_s: float
    probability: float


def median_filter(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the running median of width 7 over the last axis, with reflected ends.

    Input of up to three values is returned unchanged.

    The reference sorts every window of seven values. Here, every three neighbours are sorted only once, and used in two
    windows: in one they are the first three values, in the other the last three: x0 x1 x2 | x3 | x4 x5 x6. Call the
    sorted triples a <= b <= c and d <= e <= f. The median then takes two steps.

    1. Find the third smallest of these six. Take the i smallest of one triple and the 3 - i smallest of the other: the
       largest of those three values is never below the third smallest of all six, and for one i it is equal to it. So
       the third smallest is the least of c, max(b, d), max(a, e) and f. By the same argument from the high ends, the
       fourth smallest is the greatest of a, min(b, f), min(c, e) and d.
    2. Find the fourth smallest of all seven. It is x3 if x3 lies between the third and the fourth of the six, the third
       if x3 is smaller, and the fourth if x3 is larger. So it is max(third, min(fourth, x3)).
    """
    width = values.shape[-1]
    if width <= 3:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(3, 3)], mode="reflect")
    least, most = np.minimum, np.maximum
    first, second, third = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    low, high = least(first, second), most(first, second)
    middle = least(high, third)
    ordered = (least(low, middle), most(low, middle), most(high, third))  # the sorted triple that begins at each index
    a, b, c = (triples[..., :width] for triples in ordered)
    d, e, f = (triples[..., 4:] for triples in ordered)
    third_of_six = least(least(c, f), least(most(b, d), most(a, e)))
    fourth_of_six = most(most(a, d), most(least(c, e), least(b, f)))
    return most(third_of_six, least(fourth_of_six, padded[..., 3:-3]))


def find_alignment(weights: NDArray[np.float32], n_prompt: int) -> NDArray[np.float64]:
    """Return when each token after the prompt begins, in seconds.

    `weights` (heads, tokens, frames) is the attention of the alignment heads to the frames of the audio, for the tokens
    of the prompt, <|notimestamps|>, the text and <|endoftext|>. The decoder attends to the audio of the token that it
    is about to choose. So the rows from <|notimestamps|> to the last text token belong to the text and its end.
    """
    matrix = np.zeros((weights.shape[1] - n_prompt - 1, weights.shape[2]), np.float32)
    for head in weights:  # one head at a time, so that its data stays in the CPU's cache
        # The graph's softmax is over the whole window, but the reference's is over the frames of the audio only. If all
        # of a token's attention is on frames after the audio, its row is 0.
        shares = head / np.maximum(head.sum(axis=1, keepdims=True), 1e-12)
        deviation = shares.std(axis=0)
        standardized = (shares - shares.mean(axis=0)) / np.maximum(deviation, 1e-12)
        matrix += median_filter(standardized[n_prompt:-1])
    first, _ = dtw(-matrix.astype(np.float64))
    starts_s: NDArray[np.float64] = first * FRAME_S
    return starts_s


def dtw(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last column of each row on the cheapest path through a cost matrix (N, M).

    The path goes from corner to corner by steps right, down, and both at once. The reference fills the matrix of totals
    cell by cell:

        total[i, j] = cost[i, j] + min(total[i-1, j-1], total[i-1, j], total[i, j-1])

    Here a whole row is filled at once. A path to cell (i, j) enters row i at some column k <= j, from above or from
    above left. Up to there it has cost entry[k] = min(total[i-1, k-1], total[i-1, k]). From there it goes right over
    columns k to j, which costs sums[j] - sums[k-1], where `sums` are the running sums of the row's costs. So

        total[i, j] = min over k <= j of (entry[k] + sums[j] - sums[k-1])
                    = sums[j] + min over k <= j of (entry[k] - sums[k-1])

    and the last minimum is a running minimum, which one NumPy call computes for all columns.
    """
    n, m = cost.shape
    # `total` has a row and a column before the first ones of `cost`. A path can only begin at their corner.
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for row, (costs, sums) in enumerate(zip(cost, np.cumsum(cost, axis=1), strict=True)):
        entry = np.minimum(total[row, :-1], total[row, 1:])
        sums_before = sums - costs
        total[row + 1, 1:] = sums + np.minimum.accumulate(entry - sums_before)
    # Trace the path back from the last cell. `entered` is the column at which the best path to a cell enters its row:
    # the rightmost column up to the cell that is cheaper to reach from the row above than from the left.
    diagonal, above, left = total[:-1, :-1], total[:-1, 1:], total[1:, :-1]
    from_left = left <= np.minimum(diagonal, above)
    entered = np.maximum.accumulate(np.where(from_left, 0, np.arange(m)), axis=1)
    first, last = np.empty(n, np.int64), np.empty(n, np.int64)
    column = m - 1
    for row in reversed(range(n)):
        last[row] = column
        column = first[row] = entered[row, column]
        if diagonal[row, column] < above[row, column]:
            column -= 1
    return first, last


def estimate_token_starts(
    tokens: Sequence[int],
    words: Sequence[tuple[str, int]],
    begin_s: float,
    end_s: float,
    timestamp_begin: int,
) -> NDArray[np.float64]:
    """Return an estimate of when each text token begins, in seconds, and as the last element of when the text ends.

    `tokens` may include timestamps; `words` are the words of the text tokens, each with its number of tokens. The text
    fills the audio from `begin_s` to `end_s`, or between its timestamps; each word takes time by its characters, and
    marks by themselves take none.
    """
    weights: list[float] = []
    for word, n_tokens in words:
        n_characters = sum(character.isalnum() for character in word)
        weights += [n_characters / n_tokens] * n_tokens
    progress = np.cumsum([0.0, *weights])
    # Each timestamp says how far the text has come by then.
    known = [(0.0, begin_s)]
    n_text = 0
    for token in tokens:
        if token >= timestamp_begin:
            at_s = (token - timestamp_begin) * FRAME_S
            known.append((float(progress[n_text]), min(max(at_s, known[-1][1]), end_s)))
        else:
            n_text += 1
    if known[-1][0] < progress[-1]:
        known.append((float(progress[-1]), end_s))
    shares, times_s = zip(*known, strict=True)
    starts_s: NDArray[np.float64] = np.interp(progress, shares, times_s)
    return starts_s


def time_words(
    words: Sequence[tuple[str, Sequence[int]]],
    starts_s: NDArray[np.float64],
    probabilities: Sequence[float],
    *,
    spaced: bool = True,
) -> list[WordTiming]:
    """Return words with their times and with punctuation merged into them.

    `starts_s` has the start of each token and, as one element more, the end of the last. With `spaced`, words are
    divided at spaces only, so "d'accord" is one word. A word's probability is the mean over its tokens.
    """
    bounds = np.cumsum([0, *(len(tokens) for _, tokens in words)])
    timings = [
        WordTiming(text, float(starts_s[a]), float(starts_s[b]), float(np.mean(probabilities[a:b])))
        for (text, _), a, b in zip(words, bounds[:-1], bounds[1:], strict=True)
    ]
    durations = [timing.end_s - timing.start_s for timing in timings if timing.end_s > timing.start_s]
    longest_s = 2 * min(_LONGEST_MEDIAN_S, float(np.median(durations))) if durations else 0.0
    timings = merge_punctuations(shorten_at_sentences(timings, longest_s))
    if timings and timings[0].end_s - timings[0].start_s > longest_s:
        # The silence before the speech is not part of the first word.
        timings[0] = replace(timings[0], start_s=timings[0].end_s - longest_s)
    return join_unspaced(timings) if spaced else timings


def shorten_at_sentences(timings: list[WordTiming], longest_s: float) -> list[WordTiming]:
    """Shorten overlong words next to the end of a sentence, because they include the pause between sentences."""
    shortened = timings[:1]
    for previous, timing in pairwise(timings):
        if timing.end_s - timing.start_s <= longest_s:
            shortened.append(timing)
        elif timing.word in _SENTENCE_END:
            shortened.append(replace(timing, end_s=timing.start_s + longest_s))
        elif previous.word in _SENTENCE_END:
            shortened.append(replace(timing, start_s=timing.end_s - longest_s))
        else:
            shortened.append(timing)
    return shortened


def merge_punctuations(timings: list[WordTiming]) -> list[WordTiming]:
    """Join opening marks to the next word and closing marks to the previous one, without changing the word's times."""
    merged: list[WordTiming] = []
    for timing in timings:
        if merged and timing.word in _CLOSING and not merged[-1].word.endswith(" "):
            merged[-1] = replace(merged[-1], word=merged[-1].word + timing.word)
        elif merged and merged[-1].word.startswith(" ") and merged[-1].word.strip() in _OPENING:
            merged[-1] = replace(timing, word=merged[-1].word + timing.word)
        else:
            merged.append(timing)
    return merged


def join_unspaced(timings: list[WordTiming]) -> list[WordTiming]:
    """Join each piece without a leading space to the previous word; probabilities are weighted by length."""
    joined: list[WordTiming] = []
    for timing in timings:
        if joined and not timing.word.startswith(" "):
            previous = joined[-1]
            lengths = [len(previous.word), len(timing.word)]
            probability = float(np.average([previous.probability, timing.probability], weights=lengths))
            joined[-1] = WordTiming(previous.word + timing.word, previous.start_s, timing.end_s, probability)
        else:
            joined.append(timing)
    return joined
