"""The messages of `WS /v1/listen`: what a client's text says, and what each event looks like on the wire.

Source: Deepgram's reference of its live API and the types of its Python SDK 7.17 (`deepgram.listen.v1.types`).
What is added to that API is marked so in docs/protocol.md. Times on the wire are seconds, as there.
"""

import json
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from whisperline_contracts import Final, Finalized, Partial, SegmentEnd, SpeechStarted, UtteranceEnd, Word

from whisperline_gateway.errors import ClientError, bad_message

Message = dict[str, Any]

_CHANNEL_INDEX = [0, 1]  # the first of one: channels are mixed down
_MAX_SHOWN_CHARS = 200
_PUNCTUATION = string.punctuation + "\u2026\u201c\u201d\u2018\u2019\u00ab\u00bb\u00bf\u00a1\u3001\u3002"


class Control(StrEnum):
    """What a client can say in a text frame."""

    KEEP_ALIVE = "KeepAlive"
    FINALIZE = "Finalize"
    CLOSE_STREAM = "CloseStream"


def parse_control(text: str) -> Control | None:
    """Read a client's text message; None for a type that is not known here.

    Raises `ClientError` BAD_MESSAGE if it is no JSON object with a `type`.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise bad_message("it is not JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str):
        raise bad_message('it is not a JSON object with a "type"')
    return Control(kind) if kind in Control.__members__.values() else None


def session_started(session_id: str, connection_id: str, resume_token: str) -> Message:
    """Tell a client that asked for acks that its session is durable, from sample 0."""
    return {
        "type": "SessionStarted",
        "session_id": session_id,
        "connection_id": connection_id,
        "resume_token": resume_token,
        "position": 0,
    }


def resumed(session_id: str, connection_id: str, resume_token: str, position: int, sample_rate: int) -> Message:
    """Tell a client from which sample of its session to go on."""
    return {
        "type": "Resumed",
        "session_id": session_id,
        "connection_id": connection_id,
        "resume_token": resume_token,
        "position": position,
        "position_ms": position * 1000 // sample_rate,
    }


def ack(resume_token: str, position: int, sample_rate: int) -> Message:
    """Tell a client that its audio before `position` (samples a channel) is durable."""
    return {
        "type": "Ack",
        "position": position,
        "position_ms": position * 1000 // sample_rate,
        "resume_token": resume_token,
    }


def speech_started(event: SpeechStarted) -> Message:
    """Tell where speech began."""
    return {"type": "SpeechStarted", "channel": _CHANNEL_INDEX, "timestamp": _seconds(event.start_ms)}


def utterance_end(event: UtteranceEnd) -> Message:
    """Tell that the silence after the last word was long enough."""
    return {"type": "UtteranceEnd", "channel": _CHANNEL_INDEX, "last_word_end": _seconds(event.last_word_end_ms)}


def partial(event: Partial) -> Message:
    """Return an interim result."""
    alternative = {"transcript": event.text, "stable_transcript": event.stable_text, "confidence": 0.0, "words": []}
    return {
        **_results(event.session_id, (event.start_ms, event.end_ms), alternative),
        "is_final": False,
        "speech_final": False,
        "from_finalize": False,
        "segment_index": event.segment_index,
    }


def final(event: Final) -> Message:
    """Return a final result."""
    alternative = {
        "transcript": event.text,
        "confidence": event.confidence,
        "languages": [event.language],
        "words": [_word(word) for word in event.words],
    }
    return {
        **_results(event.session_id, (event.start_ms, event.end_ms), alternative, event.model, event.model_version),
        "is_final": True,
        "speech_final": event.reason is not SegmentEnd.MAX_LENGTH,
        "from_finalize": event.reason is SegmentEnd.FINALIZE,
        "segment_index": event.segment_index,
    }


def finalized(event: Finalized) -> Message:
    """Answer a Finalize that found no speech to finalize: an empty result, as a client may wait for one."""
    alternative: Message = {"transcript": "", "confidence": 0.0, "words": []}
    return {
        **_results(event.session_id, (event.position_ms, event.position_ms), alternative),
        "is_final": True,
        "speech_final": True,
        "from_finalize": True,
        "segment_index": None,
    }


def metadata(session_id: str, created: datetime, duration_ms: int, channels: int, segment_count: int) -> Message:
    """Return the summary that precedes a normal close."""
    return {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": session_id,
        "session_id": session_id,
        "sha256": "",
        "created": created.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration": _seconds(duration_ms),
        "channels": channels,
        "segment_count": segment_count,
    }


def error(failure: ClientError) -> Message:
    """Tell a client what went wrong and what to do; `variant` and `description` are what Deepgram's SDKs read."""
    return {
        "type": "Error",
        "code": failure.code,
        "message": failure.message,
        "action": failure.action,
        "variant": failure.code,
        "description": f"{failure.message} {failure.action}",
    }


def unknown_type(text: str) -> Message:
    """Tell a client that its text message has a type that is not known; the connection goes on."""
    return {
        "type": "Error",
        "code": "UNKNOWN_MESSAGE",
        "message": f"This message's type is not known: {text[:_MAX_SHOWN_CHARS]}",
        "action": "Send KeepAlive, Finalize or CloseStream. The connection goes on.",
        "variant": "SchemaError",
        "description": "The type of a text message is not known. The connection goes on.",
    }


def encode(message: Mapping[str, Any], sequence_id: int) -> str:
    """Return the text frame. `sequence_id` counts the messages of one connection from 0."""
    return json.dumps({**message, "sequence_id": sequence_id}, ensure_ascii=False, separators=(",", ":"))


def _results(
    session_id: str, span_ms: tuple[int, int], alternative: Message, model: str = "whisper", version: str = ""
) -> Message:
    start_ms, end_ms = span_ms
    return {
        "type": "Results",
        "channel_index": _CHANNEL_INDEX,
        "start": _seconds(start_ms),
        "duration": _seconds(end_ms - start_ms),
        "channel": {"alternatives": [alternative]},
        "metadata": {
            "request_id": session_id,
            "model_uuid": str(uuid5(NAMESPACE_OID, f"whisperline:{model}:{version}")),
            "model_info": {"name": model, "version": version, "arch": "whisper"},
        },
    }


def _word(word: Word) -> Message:
    written = word.word.strip()
    return {
        "word": written.strip(_PUNCTUATION).lower() or written,
        "punctuated_word": written,
        "start": _seconds(word.start_ms),
        "end": _seconds(word.end_ms),
        "confidence": word.confidence,
    }


def _seconds(ms: int) -> float:
    return ms / 1000
