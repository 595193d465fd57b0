"""The messages of Deepgram's live API: a client's text frames, and ours. Times are in seconds."""

import json
import string
from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from whisperline_contracts import Final, Finalized, Partial, SegmentEnd, SpeechStarted, UtteranceEnd, Word

from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.deepgram.errors import bad_message, error_action, error_code
from whisperline_gateway.protocol.messages import (
    Ack,
    ClientMessage,
    CloseStream,
    Finalize,
    Frame,
    KeepAlive,
    ServerMessage,
    SessionResumed,
    SessionStarted,
    Summary,
    UnknownMessage,
)

_Fields = dict[str, Any]  # the fields of a JSON object

_CHANNEL_INDEX = [0, 1]  # channel 0 of 1: all channels are mixed into one
_MAX_SHOWN_CHARS = 200
# Deepgram sends each word twice: as written, in `punctuated_word`, and without these characters, in `word`.
_PUNCTUATION = string.punctuation + "\u2026\u201c\u201d\u2018\u2019\u00ab\u00bb\u00bf\u00a1\u3001\u3002"
_CONTROLS: dict[str, ClientMessage] = {"KeepAlive": KeepAlive(), "Finalize": Finalize(), "CloseStream": CloseStream()}


def decode(text: str) -> ClientMessage:
    """Read a client's text frame. Raises `ClientError` BAD_MESSAGE unless it is a JSON object with a `type`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise bad_message("it is not JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str):
        raise bad_message('it is not a JSON object with a "type"')
    return _CONTROLS.get(kind) or UnknownMessage(text)


def encode(message: ServerMessage, sequence_id: int) -> Frame:
    """Return the text frame of a message. `sequence_id` counts the messages of one connection from 0."""
    fields = _fields(message)
    text = json.dumps({**fields, "sequence_id": sequence_id}, ensure_ascii=False, separators=(",", ":"))
    return Frame(fields["type"], text)


def _fields(message: ServerMessage) -> _Fields:  # noqa: PLR0911 - one for each message
    match message:
        case Partial():
            return _partial(message)
        case Final():
            return _final(message)
        case Finalized():
            # A client that has sent Finalize waits for an answer: without speech it gets an empty result.
            empty: _Fields = {"transcript": "", "confidence": 0.0, "words": []}
            return {
                **_results(message.session_id, message.position_ms, message.position_ms, empty),
                "is_final": True,
                "speech_final": True,
                "from_finalize": True,
                "segment_index": None,
            }
        case SpeechStarted():
            return {"type": "SpeechStarted", "channel": _CHANNEL_INDEX, "timestamp": message.start_ms / 1000}
        case UtteranceEnd():
            return {"type": "UtteranceEnd", "channel": _CHANNEL_INDEX, "last_word_end": message.last_word_end_ms / 1000}
        case Ack():
            return {
                "type": "Ack",
                "position": message.position,
                "position_ms": message.position * 1000 // message.sample_rate,
                "resume_token": message.resume_token,
            }
        case SessionStarted():
            return {
                "type": "SessionStarted",
                "session_id": message.session_id,
                "connection_id": message.connection_id,
                "resume_token": message.resume_token,
                "position": 0,
            }
        case SessionResumed():
            return {
                "type": "Resumed",
                "session_id": message.session_id,
                "connection_id": message.connection_id,
                "resume_token": message.resume_token,
                "position": message.position,
                "position_ms": message.position * 1000 // message.sample_rate,
            }
        case Summary():
            created = message.created.astimezone(UTC).isoformat(timespec="milliseconds")
            return {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": message.session_id,
                "session_id": message.session_id,
                "sha256": "",
                "created": created.replace("+00:00", "Z"),
                "duration": message.duration_ms / 1000,
                "channels": message.channels,
                "segment_count": message.segment_count,
            }
        case UnknownMessage():
            return {
                "type": "Error",
                "code": "UNKNOWN_MESSAGE",
                "message": f"The type of this message is not known: {message.text[:_MAX_SHOWN_CHARS]}",
                "action": "Send KeepAlive, Finalize or CloseStream. The connection goes on.",
                "variant": "SchemaError",
                "description": "The type of a text message is not known. The connection goes on.",
            }
        case ClientError():
            return {
                "type": "Error",
                "code": error_code(message),
                "message": message.message,
                "action": error_action(message),
                # Deepgram's SDKs read these two.
                "variant": error_code(message),
                "description": f"{message.message} {error_action(message)}",
            }


def _partial(event: Partial) -> _Fields:
    alternative = {
        "transcript": event.text,
        "stable_transcript": event.stable_text,
        "confidence": event.confidence,
        "words": _words(event.words),
    }
    return {
        **_results(event.session_id, event.start_ms, event.end_ms, alternative),
        "is_final": False,
        "speech_final": False,
        "from_finalize": False,
        "segment_index": event.segment_index,
    }


def _final(event: Final) -> _Fields:
    alternative = {
        "transcript": event.text,
        "confidence": event.confidence,
        "languages": [event.language],
        "words": _words(event.words),
    }
    return {
        **_results(
            event.session_id, event.start_ms, event.end_ms, alternative, model=event.model, version=event.model_version
        ),
        "is_final": True,
        "speech_final": event.ends_turn,
        "from_finalize": event.reason is SegmentEnd.FINALIZE,
        "segment_index": event.segment_index,
    }


def _words(words: Sequence[Word]) -> list[_Fields]:
    found = []
    for word in words:
        written = word.word.strip()
        found.append(
            {
                "word": written.strip(_PUNCTUATION).lower() or written,
                "punctuated_word": written,
                "start": word.start_ms / 1000,
                "end": word.end_ms / 1000,
                "confidence": word.confidence,
            }
        )
    return found


def _results(
    session_id: str, start_ms: int, end_ms: int, alternative: _Fields, *, model: str = "whisper", version: str = ""
) -> _Fields:
    return {
        "type": "Results",
        "channel_index": _CHANNEL_INDEX,
        "start": start_ms / 1000,
        "duration": (end_ms - start_ms) / 1000,
        "channel": {"alternatives": [alternative]},
        "metadata": {
            "request_id": session_id,
            "model_uuid": str(uuid5(NAMESPACE_OID, f"whisperline:{model}:{version}")),
            "model_info": {"name": model, "version": version, "arch": "whisper"},
        },
    }
