"""What goes over the wire has the shapes of Deepgram's live API."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Final, Finalized, Partial, SegmentEnd, Word
from whisperline_gateway import errors, messages
from whisperline_gateway.errors import ClientError
from whisperline_gateway.messages import Control, parse_control

IDS = {"session_id": "s", "connection_id": "c", "client_id": "o", "time_ms": 0}


def some_final(reason: SegmentEnd) -> Final:
    return Final(
        **IDS, segment_index=3, start_ms=1_250, end_ms=2_000, text=" Ask not!", language="en", confidence=0.9,
        words=(Word(word=" Ask", start_ms=1_250, end_ms=1_500, confidence=0.8),
               Word(word=" not!", start_ms=1_500, end_ms=2_000, confidence=1.0)),
        reason=reason, model="tiny.en", model_version="1", position=32_000,
    )  # fmt: skip


def test_a_final_has_the_shape_that_sdks_read() -> None:
    """Times are seconds; a word comes bare and as it is written."""
    message = messages.final(some_final(SegmentEnd.SILENCE))
    assert (message["type"], message["channel_index"]) == ("Results", [0, 1])
    assert (message["start"], message["duration"], message["segment_index"]) == (1.25, 0.75, 3)
    best = message["channel"]["alternatives"][0]
    assert best["words"][1] == {
        "word": "not", "punctuated_word": "not!", "start": 1.5, "end": 2.0, "confidence": 1.0,
    }  # fmt: skip
    assert message["metadata"]["request_id"] == "s"
    assert message["metadata"]["model_info"] == {"name": "tiny.en", "version": "1", "arch": "whisper"}
    assert isinstance(message["metadata"]["model_uuid"], str)


@pytest.mark.parametrize(
    ("reason", "speech_final", "from_finalize"),
    [
        (SegmentEnd.SILENCE, True, False),
        (SegmentEnd.END, True, False),
        (SegmentEnd.FINALIZE, True, True),
        (SegmentEnd.MAX_LENGTH, False, False),
    ],
)
def test_why_a_segment_closed_is_told(reason: SegmentEnd, speech_final: bool, from_finalize: bool) -> None:
    """A segment that was only too long is not the end of speech."""
    message = messages.final(some_final(reason))
    assert (message["is_final"], message["speech_final"], message["from_finalize"]) == (
        True, speech_final, from_finalize,
    )  # fmt: skip


def test_a_partial_carries_its_stable_part() -> None:
    """An interim result says how much of it will stay."""
    event = Partial(**IDS, segment_index=0, start_ms=0, end_ms=900, text="ask not what", stable_text="ask not")
    message = messages.partial(event)
    assert not message["is_final"]
    assert message["channel"]["alternatives"][0]["stable_transcript"] == "ask not"


def test_finalize_without_speech_is_answered() -> None:
    """A client that waits for from_finalize gets it, with an empty transcript and no segment."""
    message = messages.finalized(Finalized(**IDS, position_ms=500))
    assert message["from_finalize"]
    assert message["segment_index"] is None
    assert message["channel"]["alternatives"][0]["transcript"] == ""


def test_an_error_says_what_to_do() -> None:
    """An Error has our fields and those that Deepgram's SDKs read."""
    message = messages.error(errors.not_durable())
    assert message["code"] == message["variant"] == "NOT_DURABLE"
    assert message["action"] in message["description"]


@pytest.mark.parametrize("control", list(Control))
def test_controls_are_read(control: Control) -> None:
    """Every control of the protocol is known by its type; other fields do not matter."""
    assert parse_control(json.dumps({"type": control.value, "channel": 0})) is control


def test_an_unknown_type_is_no_error() -> None:
    """A newer client's message does not end the connection."""
    assert parse_control('{"type": "Configure"}') is None


@pytest.mark.parametrize("text", ["UklGRg==", "[1]", "{}", '{"type": 7}', "", "[" * 100_000, '"KeepAlive"'])
def test_text_that_is_no_message_is_refused(text: str) -> None:
    """Audio as text, or any other text, is an error that says so."""
    with pytest.raises(ClientError) as caught:
        parse_control(text)
    assert caught.value.code == "BAD_MESSAGE"


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever comes, the answer is a control, none, or a ClientError."""
    with contextlib.suppress(ClientError):
        parse_control(text)


def test_every_message_is_numbered() -> None:
    """The number is part of the frame."""
    assert json.loads(messages.encode({"type": "Ack"}, 7)) == {"type": "Ack", "sequence_id": 7}
