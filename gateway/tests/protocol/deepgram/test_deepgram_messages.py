"""Messages have the shapes of Deepgram's live API."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Final, Finalized, Partial, SegmentEnd, Word
from whisperline_gateway import errors
from whisperline_gateway.errors import ClientError, RestartingError, SupersededError
from whisperline_gateway.http.server import broken_frame
from whisperline_gateway.protocol.deepgram.listen import DeepgramListen
from whisperline_gateway.protocol.messages import (
    Ack,
    Audio,
    ClientMessage,
    CloseStream,
    Finalize,
    KeepAlive,
    ServerMessage,
    SessionResumed,
    Summary,
    UnknownMessage,
)


def sent(message: ServerMessage) -> dict[str, Any]:
    """Return what a client reads as the first message of its connection."""
    fields: dict[str, Any] = json.loads(DeepgramListen().encode(message).text)
    return fields


def some_final(reason: SegmentEnd = SegmentEnd.SILENCE, *, ends_turn: bool = True) -> Final:
    return Final(
        session_id="s", connection_id="c", client_id="o", time_ms=0, segment_index=3, start_ms=1_250, end_ms=2_000,
        text=" Ask not!", language="en", confidence=0.9,
        words=(Word(word=" Ask", start_ms=1_250, end_ms=1_500, confidence=0.8),
               Word(word=" not!", start_ms=1_500, end_ms=2_000, confidence=1.0)),
        reason=reason, ends_turn=ends_turn, model="tiny.en", model_version="1", position=32_000,
    )  # fmt: skip


def test_a_final_has_the_shape_that_sdks_read() -> None:
    """A final has its times in seconds, and each word both bare and punctuated."""
    message = sent(some_final())
    assert (message["type"], message["channel_index"]) == ("Results", [0, 1])
    assert (message["start"], message["duration"], message["segment_index"]) == (1.25, 0.75, 3)
    best = message["channel"]["alternatives"][0]
    assert best["words"][1] == {
        "word": "not", "punctuated_word": "not!", "start": 1.5, "end": 2.0, "confidence": 1.0,
    }  # fmt: skip
    assert message["metadata"]["request_id"] == "s"
    assert message["metadata"]["model_info"] == {"name": "tiny.en", "version": "1", "arch": "whisper"}
    assert isinstance(message["metadata"]["model_uuid"], str)


@pytest.mark.parametrize("reason", SegmentEnd)
@pytest.mark.parametrize("ends_turn", [True, False])
def test_a_final_says_if_the_speaker_is_done(reason: SegmentEnd, ends_turn: bool) -> None:
    """Every segment has a final, and the last one of a turn is the end of speech, whatever closed the segment."""
    message = sent(some_final(reason, ends_turn=ends_turn))
    assert (message["is_final"], message["speech_final"]) == (True, ends_turn)
    assert message["from_finalize"] == (reason is SegmentEnd.FINALIZE)


def test_a_partial_has_the_shape_of_a_final() -> None:
    """An interim result has words and a confidence, which voice agents wait for, and the stable part of its text."""
    event = Partial(
        session_id="s", connection_id="c", client_id="o", time_ms=0, segment_index=0, start_ms=0, end_ms=900,
        text="Ask not what", stable_text="Ask not", confidence=0.7,
        words=tuple(Word(word=word, start_ms=300 * i, end_ms=300 * (i + 1), confidence=0.7)
                    for i, word in enumerate(["Ask", "not", "what"])),
    )  # fmt: skip
    message = sent(event)
    assert (message["is_final"], message["speech_final"], message["from_finalize"]) == (False, False, False)
    best = message["channel"]["alternatives"][0]
    assert (best["transcript"], best["stable_transcript"], best["confidence"]) == ("Ask not what", "Ask not", 0.7)
    assert best["words"][0] == {
        "word": "ask", "punctuated_word": "Ask", "start": 0.0, "end": 0.3, "confidence": 0.7,
    }  # fmt: skip
    assert {*best, "languages"} == {*sent(some_final())["channel"]["alternatives"][0], "stable_transcript"}


def test_finalize_without_speech_is_answered() -> None:
    """A client that waits for from_finalize gets it, with an empty transcript and no segment."""
    message = sent(Finalized(session_id="s", connection_id="c", client_id="o", time_ms=0, position_ms=500))
    assert message["from_finalize"]
    assert message["segment_index"] is None
    assert message["channel"]["alternatives"][0]["transcript"] == ""


def test_an_error_says_what_to_do() -> None:
    """An Error has our fields and those that Deepgram's SDKs read."""
    message = sent(errors.not_durable())
    assert message["code"] == message["variant"] == "NOT_DURABLE"
    assert message["action"] in message["description"]


@pytest.mark.parametrize(
    ("failure", "code", "close_code"),
    [
        (errors.unreadable_audio("it is text"), "DATA-0000", 1008),
        (errors.bad_token("It is forged."), "BAD_RESUME_TOKEN", 1008),
        (errors.expired_token(90_000, 86_400), "RESUME_TOKEN_EXPIRED", 1008),
        (errors.unknown_session(), "SESSION_UNKNOWN", 1008),
        (errors.session_over(), "SESSION_ENDED", 1008),
        (errors.refused_options("language: this model has no de, only en."), "BAD_PARAMETER", 1008),
        (SupersededError(), "SUPERSEDED", 1008),
        (errors.silent_client(12), "NET-0001", 1011),
        (errors.late_finals(20), "FINALS_LATE", 1011),
        (errors.internal(), "INTERNAL", 1011),
        (RestartingError(), "RESTARTING", 1012),
        (errors.not_durable(), "NOT_DURABLE", 1013),
        (errors.overloaded(2_000), "OVERLOADED", 1013),
        (errors.slow_client(10), "SLOW_CLIENT", 1013),
        (broken_frame(1002, 100), "PROTOCOL", 1002),
        (broken_frame(1007, 100), "NOT_UTF8", 1007),
        (broken_frame(1009, 100), "FRAME_TOO_LARGE", 1009),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_error_has_its_code_and_close_code(failure: ClientError, code: str, close_code: int) -> None:
    """The codes are those of docs/protocol.md, and the reason of the close frame begins with them."""
    assert sent(failure)["code"] == code
    frame = DeepgramListen().close_frame(failure)
    assert frame.code == close_code
    assert frame.reason.startswith(f"{code}: ")
    assert len(frame.reason.encode()) <= 123
    assert failure.retriable == (close_code in (1011, 1012, 1013))


@pytest.mark.parametrize(
    ("kind", "message"), [("KeepAlive", KeepAlive()), ("Finalize", Finalize()), ("CloseStream", CloseStream())]
)
def test_controls_are_read(kind: str, message: ClientMessage) -> None:
    """A control is known by its type; other fields do not matter."""
    assert DeepgramListen().decode_text(json.dumps({"type": kind, "channel": 0})) == message


def test_an_empty_frame_closes_the_stream() -> None:
    """Deepgram's clients may end a stream with a binary frame that holds nothing."""
    assert DeepgramListen().decode_binary(b"") == CloseStream()
    assert DeepgramListen().decode_binary(b"ab") == Audio(b"ab")


def test_an_unknown_type_is_no_error() -> None:
    """A newer client's message does not end the connection; the client is told that it is not known."""
    text = '{"type": "Configure"}'
    assert DeepgramListen().decode_text(text) == UnknownMessage(text)
    assert sent(UnknownMessage(text))["code"] == "UNKNOWN_MESSAGE"


@pytest.mark.parametrize("text", ["UklGRg==", "[1]", "{}", '{"type": 7}', "", "[" * 100_000, '"KeepAlive"'])
def test_text_that_is_no_message_is_refused(text: str) -> None:
    """Audio as text, or any other text, is an error that says so."""
    with pytest.raises(ClientError) as caught:
        DeepgramListen().decode_text(text)
    assert caught.value.code == "BAD_MESSAGE"


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """Any text gives a message or a ClientError."""
    with contextlib.suppress(ClientError):
        DeepgramListen().decode_text(text)


def test_messages_are_numbered_from_zero() -> None:
    """Messages are numbered from 0, except the errors of the WebSocket layer."""
    protocol = DeepgramListen()
    frames = [protocol.encode(Ack("token", 16_000, 16_000)) for _ in range(3)]
    assert [json.loads(frame.text)["sequence_id"] for frame in frames] == [0, 1, 2]
    assert json.loads(protocol.broken_frame(broken_frame(1009, 100)).text)["sequence_id"] == -1


def test_positions_come_in_samples_and_in_milliseconds() -> None:
    """An Ack and the answer to a resumption give the position in samples and in milliseconds."""
    assert sent(Ack("t", 4_000, 8_000)) == {
        "type": "Ack", "position": 4_000, "position_ms": 500, "resume_token": "t", "sequence_id": 0,
    }  # fmt: skip
    resumed = sent(SessionResumed("s", "c", "t", 4_000, 8_000))
    assert (resumed["type"], resumed["position"], resumed["position_ms"]) == ("Resumed", 4_000, 500)


def test_a_summary_has_the_fields_of_deepgrams_metadata() -> None:
    """A summary has all fields that Deepgram's SDK reads, though some mean nothing here."""
    message = sent(Summary("s", datetime(2026, 1, 1, 12, tzinfo=UTC), 11_000, 2, 3))
    assert message == {
        "type": "Metadata", "transaction_key": "deprecated", "request_id": "s", "session_id": "s", "sha256": "",
        "created": "2026-01-01T12:00:00.000Z", "duration": 11.0, "channels": 2, "segment_count": 3, "sequence_id": 0,
    }  # fmt: skip


def test_the_handshake_is_deepgrams() -> None:
    """SDKs read the request id from a header, and in a browser offer their key as a subprotocol after "token"."""
    handshake = DeepgramListen().handshake("session", ["token", "key"])
    assert handshake.subprotocol == "token"
    assert list(handshake.headers) == [(b"dg-request-id", b"session")]
    assert DeepgramListen().handshake("session", []).subprotocol is None
