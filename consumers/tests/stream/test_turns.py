"""When a silence ends a turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.turns import TurnRule, closing_ms, ends_sentence

RULE = TurnRule()
logprobs = st.floats(-30, 0)


def transcript(text: str, last_logprob: float = -0.1) -> Transcript:
    return Transcript(
        text=text, language="en", words=[], avg_logprob=-0.2, model="m", version="1", last_logprob=last_logprob
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
        "ほんとう？",  # noqa: RUF001
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
    sure, doubtful = closing_ms(transcript("I see.", -0.05)), closing_ms(transcript("I see.", -0.8))
    assert sure < 600 < doubtful < closing_ms(transcript("I see"))


@given(st.text(), logprobs, st.lists(st.text(), max_size=5))
def test_the_silence_stays_within_its_limits(text: str, logprob: float, finals: list[str]) -> None:
    """Whatever the model says, the turn ends after `sure_ms` at the earliest and `longest_ms` at the latest."""
    assert RULE.sure_ms <= closing_ms(transcript(text, logprob), finals) <= RULE.longest_ms


@given(logprobs, logprobs)
def test_the_silence_never_falls_with_doubt(one: float, other: float) -> None:
    """The less sure the model is of the mark, the longer the silence, or as long."""
    surer, less_sure = sorted((one, other), reverse=True)
    assert closing_ms(transcript("Yes.", surer)) <= closing_ms(transcript("Yes.", less_sure))


@given(st.text(alphabet="abc ,", min_size=1), logprobs)
def test_without_a_mark_the_probability_does_not_count(text: str, logprob: float) -> None:
    """The last token of an open text is a word, whose probability says nothing about the end."""
    assert closing_ms(transcript(text, logprob)) == RULE.longest_ms


def test_a_model_that_sets_no_marks_is_not_waited_for() -> None:
    """After some finals without a mark, a text without one is no sign that the speaker goes on."""
    finals = ["สวัสดีครับ", "ขอบคุณมาก", "ไม่เป็นไร"]
    assert closing_ms(transcript("แล้วพบกัน"), finals[:2]) == RULE.longest_ms
    assert closing_ms(transcript("แล้วพบกัน"), finals) == RULE.unmarked_ms
    assert closing_ms(transcript("แล้วพบกัน"), [*finals, "Bye."]) == RULE.longest_ms


def test_finals_without_words_do_not_count() -> None:
    """An empty final says nothing about the model's marks."""
    assert closing_ms(transcript("and then"), ["", " ", "", ""]) == RULE.longest_ms


def test_the_cap_limits_every_answer() -> None:
    """A longest silence below the others is kept."""
    rule = TurnRule(longest_ms=700)
    assert closing_ms(transcript("Yes.", -3), (), rule) == 700
    assert closing_ms(transcript("ok"), ["a", "b", "c"], rule) == 700
