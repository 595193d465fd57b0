from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_models.engine.decoding import Decoded
from whisperline_models.engine.guards import Verdict, is_believable_repetition, judge, loops

DECODED = Decoded((1, 2), (-0.1, -0.1), avg_logprob=-0.2, no_speech_prob=0.01, language="en", ended=True)
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
    """Probabilities and text decide together."""
    decoded = replace(DECODED, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
    assert judge(decoded, text, range(8), audio_s=3.0) is verdict


def test_a_word_in_much_audio_must_be_surer() -> None:
    """ "Thank you." over half a minute is no speech where no-speech is likely; over a second it may be."""
    decoded = replace(DECODED, avg_logprob=-0.7, no_speech_prob=0.7)
    assert judge(decoded, "Thank you.", range(3), audio_s=28.0) is Verdict.SILENT
    assert judge(decoded, "Thank you.", range(3), audio_s=1.0) is Verdict.GOOD


def test_a_repetition_is_believed_only_when_it_ended_and_is_probable() -> None:
    """A loop that runs into the limit is not what was said."""
    assert is_believable_repetition(DECODED)
    assert not is_believable_repetition(replace(DECODED, ended=False))
    assert not is_believable_repetition(replace(DECODED, avg_logprob=-0.8))


@given(
    head=st.lists(st.integers(100, 200), max_size=10, unique=True),
    unit=st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True),
    times=st.integers(1, 20),
)
def test_loops_are_found_wherever_they_begin(head: list[int], unit: list[int], times: int) -> None:
    """More than eight repeats of a few tokens are a loop, eight are not."""
    assert loops(head + unit * times) is (times > 8)
