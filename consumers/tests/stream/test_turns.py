"""When a silence ends a turn."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Said
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.turns import N_FINALS, TurnRule, closing_ms, ends_sentence

RULE = TurnRule()
LONG_AFTER = 160_000  # samples: 10 s
logprobs = st.floats(-30, 0)


def transcript(text: str, last_logprob: float = -0.1) -> Transcript:
    return Transcript(
        text=text, language="en", words=[], avg_logprob=-0.2, model="m", version="1", last_logprob=last_logprob
    )


def conversation(*texts: str, gap: int = LONG_AFTER) -> tuple[list[Said], int]:
    """Return finals of a second each, `gap` samples apart, and where the next segment begins."""
    starts = [index * (16_000 + gap) for index in range(len(texts) + 1)]
    return [Said(text=text, start=start, end=start + 16_000) for text, start in zip(texts, starts, strict=False)], (
        starts[-1]
    )


@pytest.mark.parametrize(
    "text",
    [
        "How are you?",
        "I'm done.",
        "Stop! ",
        'He said "no."',
        "(See above.)",
        "好的。",
        "ほんとう？",  # noqa: RUF001 - Japanese
        "क्या हुआ।",
        "كيف حالك؟",
    ],
)
def test_a_mark_ends_a_sentence(text: str) -> None:
    """The marks of Whisper's languages count, also inside a closing quotation mark or bracket."""
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["", " ", "I'd like to", "Well,", "I mean...", "I mean…", "and so on:", "好的", '"'])
def test_other_texts_do_not_end_a_sentence(text: str) -> None:
    """A comma, an ellipsis, a bare word or no text at all is no end."""
    assert not ends_sentence(text)


def test_a_surer_mark_closes_sooner() -> None:
    """A full stop of which the model is sure ends the turn before a doubtful one, and that before no full stop."""
    sure, doubtful = closing_ms(transcript("I see.", -0.05), 0), closing_ms(transcript("I see.", -0.8), 0)
    assert sure < 500 < doubtful < closing_ms(transcript("I see"), 0)


@given(st.text(), logprobs, st.lists(st.tuples(st.text(), st.integers(0, 50_000)), max_size=5))
def test_the_silence_stays_within_its_limits(text: str, logprob: float, finals: list[tuple[str, int]]) -> None:
    """Whatever was said, the turn ends after `sure_ms` at the earliest and `longest_ms` at the latest."""
    *starts, start = accumulate((gap for _, gap in finals), initial=0)
    said = [Said(text=text, start=at, end=at) for (text, _), at in zip(finals, starts, strict=True)]
    assert RULE.sure_ms <= closing_ms(transcript(text, logprob), start, said) <= RULE.longest_ms


@given(logprobs, logprobs)
def test_the_silence_never_falls_with_doubt(one: float, other: float) -> None:
    """The less sure the model is of the mark, the longer the silence, or as long."""
    surer, less_sure = sorted((one, other), reverse=True)
    assert closing_ms(transcript("Yes.", surer), 0) <= closing_ms(transcript("Yes.", less_sure), 0)


@given(st.text(alphabet="abc ,", min_size=1), logprobs)
def test_without_a_mark_the_probability_does_not_count(text: str, logprob: float) -> None:
    """The last token of an open text is a word, whose probability says nothing about the end."""
    assert closing_ms(transcript(text, logprob), 0) == RULE.longest_ms


def test_a_speaker_who_often_goes_on_gets_more_time() -> None:
    """Each of the latest turns that was ended too early lengthens the silence, and older ones are forgotten."""
    base = closing_ms(transcript("Yes."), 0)
    said, start = conversation("One.", "Two.", gap=4_000)
    assert closing_ms(transcript("Yes."), start, said) == base + 2 * RULE.habit_ms
    assert closing_ms(transcript("Yes."), start + LONG_AFTER, said) == base + RULE.habit_ms
    said, start = conversation("One.", "Two.", "Three.", "Four.", gap=4_000)
    assert closing_ms(transcript("Yes."), start, said) == base + N_FINALS * RULE.habit_ms
    said, start = conversation("One.", "Two.", "Three.", "Four.")
    assert closing_ms(transcript("Yes."), start, said) == base


def test_a_model_that_sets_no_marks_is_not_waited_for() -> None:
    """After some finals without a mark, a text without one is no sign that the speaker goes on."""
    said, start = conversation("สวัสดีครับ", "ขอบคุณมาก", "ไม่เป็นไร")
    assert closing_ms(transcript("แล้วพบกัน"), start, said[1:]) == RULE.longest_ms
    assert closing_ms(transcript("แล้วพบกัน"), start, said) == RULE.unmarked_ms
    said, start = conversation("สวัสดีครับ", "ขอบคุณมาก", "Bye.")
    assert closing_ms(transcript("แล้วพบกัน"), start, said) == RULE.longest_ms


def test_the_longest_silence_limits_every_answer() -> None:
    """A longest silence below the others is kept."""
    rule = TurnRule(longest_ms=350)
    assert closing_ms(transcript("Yes.", -3), 0, (), rule) == 350
    said, start = conversation("a", "b", "c")
    assert closing_ms(transcript("ok"), start, said, rule) == 350
