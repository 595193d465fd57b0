"""The temperature fallback: which results are trusted, which are decoded again, and which one is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_models.engine.audio import CHUNK_LENGTH_S
from whisperline_models.engine.decoding import DecodingResult
from whisperline_models.engine.fallback import (
    Fallback,
    Settled,
    Verdict,
    has_loop,
    is_believable_repetition,
    is_settled,
    judge,
    plan_attempts,
)
from whisperline_models.engine.requests import TEMPERATURES

RESULT = DecodingResult((1, 2), (-0.1, -0.1), avg_logprob=-0.2, no_speech_prob=0.01, language="en", ended=True)
TEXT = "Ask not what your country can do for you."


@pytest.mark.parametrize(
    ("avg_logprob", "no_speech_prob", "text", "verdict"),
    [
        (-0.2, 0.01, TEXT, Verdict.GOOD),
        (-1.2, 0.01, TEXT, Verdict.IMPROBABLE),
        (-1.2, 0.7, TEXT, Verdict.SILENT),
        (-0.7, 0.7, TEXT, Verdict.GOOD),
        (-0.6, 0.95, TEXT, Verdict.SILENT),
        (-0.2, 0.01, " ...", Verdict.SILENT),
        (-0.2, 0.01, "no " * 60, Verdict.REPEATED),
    ],
)
def test_verdicts(avg_logprob: float, no_speech_prob: float, text: str, verdict: Verdict) -> None:
    """The verdict depends on the probabilities and on the text."""
    result = replace(RESULT, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
    assert judge(result, text, range(8), audio_s=3.0) is verdict


def test_a_word_in_much_audio_must_be_surer() -> None:
    """ "Thank you." over half a minute is judged silent if no speech is likely; over one second it is kept."""
    result = replace(RESULT, avg_logprob=-0.7, no_speech_prob=0.7)
    assert judge(result, "Thank you.", range(3), audio_s=28.0) is Verdict.SILENT
    assert judge(result, "Thank you.", range(3), audio_s=1.0) is Verdict.GOOD


@pytest.mark.parametrize(
    ("verdict", "plain", "with_context", "with_beams"),
    [
        (Verdict.GOOD, True, True, True),
        (Verdict.SILENT, True, False, True),
        (Verdict.IMPROBABLE, True, False, False),
        (Verdict.REPEATED, True, False, False),
    ],
)
def test_what_fails_with_context_or_beams_is_judged_without_them(
    verdict: Verdict, plain: bool, with_context: bool, with_beams: bool
) -> None:
    """Only a good text is settled with a prompt or prefix; with beams, a silence, too."""
    assert is_settled(RESULT, verdict, has_context=False, has_beams=False) is plain
    assert is_settled(RESULT, verdict, has_context=True, has_beams=False) is with_context
    assert is_settled(RESULT, verdict, has_context=False, has_beams=True) is with_beams


@pytest.mark.parametrize(
    ("text", "n_tokens", "alone", "in_context"),
    [
        ("I see, I see.", 4, Verdict.GOOD, Verdict.REPEATED),
        ("But she said,", 5, Verdict.GOOD, Verdict.SILENT),  # in six seconds
        (TEXT, 10, Verdict.GOOD, Verdict.GOOD),
    ],
)
def test_a_text_in_context_must_be_full_and_say_nothing_twice(
    text: str, n_tokens: int, alone: Verdict, in_context: Verdict
) -> None:
    """Otherwise it is decoded again without prompt and prefix."""
    tokens = list(range(n_tokens))
    audio_s = 6.0 if n_tokens == 5 else 3.0
    assert judge(RESULT, text, tokens, audio_s) is alone
    assert judge(RESULT, text, tokens, audio_s, has_context=True) is in_context


def test_beams_do_not_decide_alone_that_somebody_speaks() -> None:
    """A text of beam search that is hardly probable, where speech is doubtful, is not settled; a greedy one is."""
    noise = replace(RESULT, avg_logprob=-0.8, no_speech_prob=0.5)
    assert not is_settled(noise, Verdict.GOOD, has_context=False, has_beams=True)
    assert is_settled(noise, Verdict.GOOD, has_context=False, has_beams=False)


def test_a_repetition_is_believed_only_when_it_ended_and_is_probable() -> None:
    """A repetition is believed only if it is probable and ended before the maximum length."""
    assert is_believable_repetition(RESULT)
    assert not is_believable_repetition(replace(RESULT, ended=False))
    assert not is_believable_repetition(replace(RESULT, avg_logprob=-0.8))


@given(
    head=st.lists(st.integers(100, 200), max_size=10, unique=True),
    unit=st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True),
    times=st.integers(1, 20),
)
def test_loops_are_found_wherever_they_begin(head: list[int], unit: list[int], times: int) -> None:
    """More than eight repeats of a few tokens are a loop; eight repeats are not."""
    assert has_loop(head + unit * times) is (times > 8)


@pytest.mark.parametrize(
    ("seconds", "window_s"), [(0.1, 12), (11.7, 12), (11.8, 15), (14.7, 15), (19.6, 20), (19.8, 30), (30.0, 30)]
)
def test_the_window_is_the_smallest_with_a_margin(seconds: float, window_s: int) -> None:
    """The window leaves 0.3 s free after the audio, unless that would exceed 30 s."""
    assert plan_attempts(round(seconds * 16000), (30, 12, 20, 15), (0.0,))[0].window_s == window_s


def test_temperatures_rise_over_the_full_window() -> None:
    """After the small window, the temperatures are tried in 30 s, from the lowest to the highest."""
    planned = [(attempt.window_s, attempt.temperature) for attempt in plan_attempts(16000, (12, 30), TEMPERATURES)]
    assert planned == [(12, 0.0), (30, 0.0), (30, 0.2), (30, 0.4), (30, 0.6), (30, 0.8), (30, 1.0)]


GOOD = (RESULT, Verdict.GOOD)
LOOPS = (replace(RESULT, tokens=(1, 2) * 20), Verdict.REPEATED)
CUT_LOOPS = (replace(LOOPS[0], ended=False), Verdict.REPEATED)
SILENT = (replace(RESULT, avg_logprob=-2.0, no_speech_prob=0.95), Verdict.SILENT)
IMPROBABLE = (replace(RESULT, avg_logprob=-1.2), Verdict.IMPROBABLE)
LESS_PROBABLE = (replace(RESULT, avg_logprob=-1.4), Verdict.IMPROBABLE)


def settle(attempts: list[tuple[DecodingResult, Verdict]], windows_s: tuple[float, ...] = (CHUNK_LENGTH_S,)) -> Settled:
    """Pass these results to the fallback, and return what it settles on, which it must do with the last one."""
    fallback = Fallback(16_000 * 20, windows_s, temperatures=(0.0, 0.2, 0.4))
    *before, last = [fallback.take(fallback.next_attempt(), result, verdict) for result, verdict in attempts]
    assert before == [None] * len(before)
    assert last is not None
    return last


@pytest.mark.parametrize(
    ("attempts", "kept"),
    [
        ([GOOD], GOOD),
        ([LOOPS, GOOD], GOOD),
        ([LOOPS, LOOPS, LOOPS], LOOPS),
        ([LOOPS, SILENT], None),  # typical of noise
        ([IMPROBABLE, IMPROBABLE], IMPROBABLE),
        ([LESS_PROBABLE, IMPROBABLE], IMPROBABLE),
        ([IMPROBABLE, LESS_PROBABLE], IMPROBABLE),
        ([IMPROBABLE, SILENT], None),
        ([SILENT], None),
        ([CUT_LOOPS] * 3, None),
    ],
)
def test_the_result_that_is_kept(
    attempts: list[tuple[DecodingResult, Verdict]], kept: tuple[DecodingResult, Verdict] | None
) -> None:
    """The fallback keeps the first good result, else silence, else a believable repetition, else the most probable."""
    settled = settle(attempts)
    assert settled.silent == (kept is None)
    assert kept is None or settled.result == kept[0]


def test_what_fails_over_a_short_window_costs_no_attempt_over_the_full_one() -> None:
    """An improbable result counts towards the limit only if its window had 30 s."""
    assert settle([IMPROBABLE, LESS_PROBABLE, LESS_PROBABLE], (20.5, CHUNK_LENGTH_S)) == Settled(IMPROBABLE[0], False)
