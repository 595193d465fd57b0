"""Word times: the median filter, the cheapest path, and words from the starts of their tokens."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_models.engine.result import Word, separate_words, without_marks
from whisperline_models.engine.timing import dtw, estimate_token_starts, find_alignment, median_filter, time_words


@settings(deadline=None)
@given(width=st.integers(4, 40), seed=st.integers(0, 2**32 - 1))
def test_the_running_median_is_the_median(width: int, seed: int) -> None:
    """The filter gives the same as sorting every seven neighbours, with reflected ends."""
    values = np.random.default_rng(seed).normal(size=(2, width)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, [(0, 0), (3, 3)], mode="reflect"), 7, axis=1)
    np.testing.assert_array_equal(median_filter(values), np.median(windows, axis=2))


def cheapest(cost: NDArray[np.float64]) -> float:
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, j in product(range(1, total.shape[0]), range(1, total.shape[1])):
        total[i, j] = cost[i - 1, j - 1] + min(total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
    return float(total[-1, -1])


@settings(deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_the_path_is_monotonic_and_cheapest(n: int, m: int, seed: int) -> None:
    """The path goes from corner to corner in single steps, at the cost that the plain recursion finds."""
    cost = np.random.default_rng(seed).normal(size=(n, m))
    first, last = dtw(cost)
    assert (first[0], last[-1]) == (0, m - 1)
    assert (first <= last).all()
    assert set(first[1:] - last[:-1]) <= {0, 1}
    paid = sum(cost[row, begin : end + 1].sum() for row, (begin, end) in enumerate(zip(first, last, strict=True)))
    np.testing.assert_allclose(paid, cheapest(cost), atol=1e-9)


def test_tokens_start_where_attention_moves() -> None:
    """If attention stays on each token for twenty frames, the starts are twenty frames apart."""
    n_tokens, n_frames = 6, 120
    weights = np.full((2, n_tokens, n_frames), 1e-3, np.float32)
    for token in range(n_tokens):
        weights[:, token, token * 20 : token * 20 + 20] = 1
    starts = find_alignment(weights, n_prompt=1)
    np.testing.assert_allclose(np.diff(starts)[1:], 0.4, atol=0.05)


def test_a_token_that_attends_to_nothing_heard_spoils_no_other() -> None:
    """A token whose attention is all after the audio does not change the times of the others."""
    n_tokens, n_frames = 6, 120
    weights = np.full((2, n_tokens, n_frames), 1e-3, np.float32)
    for token in range(n_tokens):
        weights[:, token, token * 20 : token * 20 + 20] = 1
    weights[0, -1] = 0
    np.testing.assert_allclose(np.diff(find_alignment(weights, n_prompt=1))[1:], 0.4, atol=0.05)


def test_punctuation_joins_its_word() -> None:
    """A closing mark joins the previous word, an opening mark the next one, and neither changes its times."""
    words = [(' "', [1]), ("Yes", [2]), (",", [3]), (" sir", [4]), (".", [5])]
    timed = time_words(words, np.arange(6.0) / 4, [0.5] * 5)
    assert [word.word for word in timed] == [' "Yes,', " sir."]
    assert [(word.start_s, word.end_s) for word in timed] == [(0.25, 0.5), (0.75, 1.0)]


def test_pieces_without_a_space_are_one_word() -> None:
    """In a language with spaces, an apostrophe does not end a word; in one without, characters stay separate."""
    words = [(" d", [1]), ("'accord", [2]), (" oui", [3])]
    joined = time_words(words, np.arange(4.0), [0.5, 0.5, 0.5])
    assert [(word.word, word.start_s, word.end_s) for word in joined] == [(" d'accord", 0, 2), (" oui", 2, 3)]
    apart = time_words([("公", [1]), ("交", [2])], np.arange(3.0), [0.5, 0.5], spaced=False)
    assert [word.word for word in apart] == ["公", "交"]


def test_a_pause_before_the_first_word_is_not_the_words() -> None:
    """The first word is at most twice as long as the median."""
    timed = time_words([(" a", [1]), (" b", [2]), (" c", [3])], np.array([0.0, 5.0, 5.4, 5.8]), [1.0] * 3)
    assert timed[0].start_s > 4


def test_estimated_words_share_the_audio_by_their_letters() -> None:
    """Words take time by their letters, marks take none, and a word's tokens share its time."""
    words = [(" abcd", 2), (",", 1), (" ab", 1)]
    starts = estimate_token_starts([1, 2, 3, 4], words, 1.0, 4.0, timestamp_begin=100)
    np.testing.assert_allclose(starts, [1, 2, 3, 3, 4])


def test_estimated_words_lie_between_their_timestamps() -> None:
    """Words between two timestamps share the time between these; the last ones end where the audio ends."""
    tokens = [100, 1, 2, 200, 250, 3, 4]  # 0.00, two words, 2.00, 3.00, two words
    starts = estimate_token_starts(tokens, [(" a", 1), (" b", 1), (" c", 1), (" d", 1)], 0.0, 5.0, timestamp_begin=100)
    np.testing.assert_allclose(starts, [0, 1, 3, 4, 5])


@given(
    times=st.lists(st.tuples(st.integers(-50, 3_000), st.integers(-50, 3_000)), max_size=40),
    begin_ms=st.integers(0, 1_000),
    length_ms=st.integers(0, 2_000),
)
def test_words_are_separate_and_within_the_audio(times: list[tuple[int, int]], begin_ms: int, length_ms: int) -> None:
    """Whatever times the alignment gives, words have a length, do not overlap, and lie within the audio."""
    words = [Word(str(index), start, end, 0.5) for index, (start, end) in enumerate(times)]
    separated = separate_words(words, begin_ms, begin_ms + length_ms)
    assert [word.word for word in separated] == [word.word for word in words]
    assert all(word.start_ms < word.end_ms for word in separated)
    assert all(one.end_ms <= other.start_ms for one, other in pairwise(separated))
    if separated:
        assert separated[0].start_ms >= begin_ms
        assert separated[-1].end_ms <= begin_ms + max(length_ms, len(words))


def test_words_that_are_separate_stay_as_they_are() -> None:
    """Only words without a length, or that overlap, are changed."""
    words = (Word("a", 100, 200, 0.5), Word("b", 200, 220, 0.5), Word("c", 400, 500, 0.5))
    assert separate_words(words, 0, 500) == words
    squeezed = separate_words([Word("a", 100, 100, 0.5), Word("b", 100, 300, 0.5)], 0, 300)
    assert [(word.start_ms, word.end_ms) for word in squeezed] == [(100, 120), (120, 300)]


def test_a_text_behind_a_prefix_begins_with_a_word() -> None:
    """The mark that the prefix lacked is no part of the text behind it, and no word."""
    words = (Word(".", 0, 20, 0.5), Word("-So,", 20, 300, 0.9), Word("that", 300, 500, 0.9))
    assert without_marks(". -So, that", words) == ("-So, that", words[1:])
    assert without_marks(", so", (Word(",so", 0, 300, 0.9),)) == ("so", (Word("so", 0, 300, 0.9),))
    assert without_marks("So", ()) == ("So", ())
