"""The messages of a gateway and the events of a stream, as types.

The protocol is `WS /v1/listen` with `acks=true` of docs/protocol.md.

Times are whole milliseconds from the start of the session's audio. Positions are samples per channel.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from whisperline_client.errors import ProtocolError

Json = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Started:
    """The gateway has opened the session. `position` is that of the first audio to send: 0."""

    session_id: str
    connection_id: str
    resume_token: str = field(repr=False)
    position: int = 0


@dataclass(frozen=True)
class Resumed:
    """A new connection has resumed the session. The gateway has the audio before `position`."""

    session_id: str
    connection_id: str
    resume_token: str = field(repr=False)
    position: int


@dataclass(frozen=True)
class Ack:
    """The audio before `position` is durable. `resume_token` resumes the session at any gateway."""

    position: int
    resume_token: str = field(repr=False)


@dataclass(frozen=True)
class SpeechStarted:
    """Speech begins at `start_ms`."""

    start_ms: int


@dataclass(frozen=True)
class Word:
    """One word of a partial or a final. In a partial its times are estimates."""

    word: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True)
class Partial:
    """The text of the open segment so far. It begins with `stable_text`, which seldom changes before the final."""

    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    stable_text: str
    words: tuple[Word, ...] = ()
    confidence: float = 0.0


@dataclass(frozen=True)
class Final:
    """The text of a closed segment. With `speech_final` it is the last one of the speaker's turn.

    `delay_s` counts from when the client got the audio of its last word.
    """

    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...]
    confidence: float
    speech_final: bool
    from_finalize: bool
    delay_s: float | None = None


@dataclass(frozen=True)
class Finalized:
    """The gateway's answer to `Finalize` when no segment was open."""


@dataclass(frozen=True)
class UtteranceEnd:
    """The silence after the last word has lasted for `utterance_end_ms`."""

    last_word_end_ms: int


@dataclass(frozen=True)
class Metadata:
    """The session's summary: the last message before the socket closes."""

    session_id: str
    duration_ms: int
    segment_count: int


@dataclass(frozen=True)
class Fault:
    """The reason why the gateway is about to close the socket, and what to do about it."""

    code: str
    message: str


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost. The client tries the next gateway in `retry_in_s` seconds."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True)
class Closed:
    """The session is over and every final has been delivered."""

    session_id: str
    duration_ms: int
    segment_count: int
    connection_count: int


Message = Started | Resumed | Ack | SpeechStarted | Partial | Final | Finalized | UtteranceEnd | Metadata | Fault
Event = Started | Resumed | Ack | SpeechStarted | Partial | Final | Finalized | UtteranceEnd | Disconnected | Closed


def decode(text: str | bytes) -> Message | None:
    """Return a message of the gateway; None if its type is unknown, since later versions may add some.

    Raises `ProtocolError` if it is not JSON, or a field is missing or of the wrong type.
    """
    try:
        message = json.loads(text)
        decoder = _DECODERS.get(message["type"])
        return None if decoder is None else decoder(message)
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the gateway sent {str(text)[:200]!r}: {type(error).__name__} {error}") from error


def _text(fields: Json, name: str) -> str:
    return _of_type(fields, name, str)


def _count(fields: Json, name: str) -> int:
    return _of_type(fields, name, int)


def _flag(fields: Json, name: str) -> bool:
    return _of_type(fields, name, bool)


def _of_type(fields: Json, name: str, kind: type[T]) -> T:
    value = fields[name]
    if type(value) is not kind:  # isinstance would take True for an int
        raise TypeError(f"{name} is {value!r}")
    return value


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _results(message: Json) -> Message:
    best = message["channel"]["alternatives"][0]
    # A `Finalize` that found no open segment is answered by a final without a segment.
    if message["is_final"] and message["segment_index"] is None:
        return Finalized()
    index = _count(message, "segment_index")
    start_ms, end_ms = _ms(message["start"]), _ms(message["start"] + message["duration"])
    words = tuple(
        Word(_text(word, "punctuated_word"), _ms(word["start"]), _ms(word["end"]), float(word["confidence"]))
        for word in best["words"]
    )
    if not message["is_final"]:
        return Partial(
            segment_index=index,
            start_ms=start_ms,
            end_ms=end_ms,
            text=_text(best, "transcript"),
            stable_text=_text(best, "stable_transcript"),
            words=words,
            confidence=float(best["confidence"]),
        )
    return Final(
        segment_index=index,
        start_ms=start_ms,
        end_ms=end_ms,
        text=_text(best, "transcript"),
        words=words,
        confidence=float(best["confidence"]),
        speech_final=_flag(message, "speech_final"),
        from_finalize=_flag(message, "from_finalize"),
    )


def _opening(m: Json) -> tuple[str, str, str, int]:
    return _text(m, "session_id"), _text(m, "connection_id"), _text(m, "resume_token"), _count(m, "position")


_DECODERS: dict[str, Callable[[Json], Message]] = {
    "SessionStarted": lambda m: Started(*_opening(m)),
    "Resumed": lambda m: Resumed(*_opening(m)),
    "Ack": lambda m: Ack(_count(m, "position"), _text(m, "resume_token")),
    "SpeechStarted": lambda m: SpeechStarted(_ms(m["timestamp"])),
    "Results": _results,
    "UtteranceEnd": lambda m: UtteranceEnd(_ms(m["last_word_end"])),
    "Metadata": lambda m: Metadata(_text(m, "session_id"), _ms(m["duration"]), _count(m, "segment_count")),
    "Error": lambda m: Fault(_text(m, "code"), f"{_text(m, 'message')} {_text(m, 'action')}"),
}
