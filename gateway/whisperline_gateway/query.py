"""The query of `WS /v1/listen`, read into types. Parameters and their meaning: docs/protocol.md.

Source: Deepgram's reference of its live API (listen-streaming). Parameters that are not known here are ignored,
as that API does; a known one with a value that cannot be used is an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whisperline_contracts import StreamOptions
from whisperline_contracts.audio import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from whisperline_gateway.errors import bad_parameter
from whisperline_gateway.pcm import PcmFormat

MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 100, 5_000
MIN_UTTERANCE_END_MS, MAX_UTTERANCE_END_MS = 1_000, 10_000
_MAX_SEGMENTS = 2**31
_LANGUAGE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{2,8})*", re.IGNORECASE)
_SESSION_ID = re.compile(r"[0-9a-f-]{36}")
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

Query = Mapping[str, str]


@dataclass(frozen=True)
class Resume:
    """The session that a connection wants to go on with, and the first final that its client lacks."""

    session_id: str
    token: str
    finals_from: int


@dataclass(frozen=True)
class ListenRequest:
    """What a connection asks for. `pcm` is None when the audio comes in a container (WAV)."""

    pcm: PcmFormat | None
    options: StreamOptions
    client_id: str | None
    acks: bool
    vad_events: bool
    resume: Resume | None


def parse_query(query: Query) -> ListenRequest:
    """Read the query. Raises `ClientError` BAD_PARAMETER."""
    return ListenRequest(
        pcm=_pcm(query),
        options=_options(query),
        client_id=_client_id(query),
        acks=_boolean(query, "acks", default=False),
        vad_events=_boolean(query, "vad_events", default=False),
        resume=_resume(query),
    )


def parse_traceparent(text: str) -> str | None:
    """Return the header `traceparent`, if it is one."""
    return text if _TRACEPARENT.fullmatch(text) else None


def _options(query: Query) -> StreamOptions:
    return StreamOptions(
        language=_language(query),
        interim_results=_boolean(query, "interim_results", default=False),
        priority=_priority(query),
        endpointing_ms=_endpointing_ms(query),
        utterance_end_ms=_utterance_end_ms(query),
    )


def _pcm(query: Query) -> PcmFormat | None:
    encoding = query.get("encoding")
    if encoding is None:
        return None
    if encoding != "linear16":
        raise bad_parameter("encoding", f"{_shown(encoding)} is not possible; linear16 is, or none for a WAV file")
    if "sample_rate" not in query:
        raise bad_parameter("sample_rate", "it is needed with encoding=linear16")
    sample_rate = _integer(query, "sample_rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    return PcmFormat(sample_rate, _integer(query, "channels", 1, MAX_CHANNELS) if "channels" in query else 1)


def _language(query: Query) -> str | None:
    if _boolean(query, "detect_language", default=False):
        return None
    language = query.get("language", "en")
    match = _LANGUAGE.fullmatch(language)
    if match is None and language not in ("multi", "auto"):
        raise bad_parameter("language", f"{_shown(language)} is no language tag such as en, de or en-US, nor multi")
    return None if match is None or language in ("multi", "auto") else match[1].lower()


def _priority(query: Query) -> Literal["live", "file"]:
    match query.get("priority", "live"):
        case "live":
            return "live"
        case "file":
            return "file"
        case other:
            raise bad_parameter("priority", f"{_shown(other)} is neither live nor file")


def _endpointing_ms(query: Query) -> int:
    """Silence that closes a segment, brought into the range that can be had."""
    match query.get("endpointing", "true").lower():
        case "true":
            return StreamOptions().endpointing_ms
        case "false":
            return MAX_ENDPOINTING_MS
        case _:
            wanted = _integer(query, "endpointing", 0, 600_000)
            return min(max(wanted, MIN_ENDPOINTING_MS), MAX_ENDPOINTING_MS)


def _utterance_end_ms(query: Query) -> int | None:
    if query.get("utterance_end_ms", "false").lower() == "false":
        return None
    return _integer(query, "utterance_end_ms", MIN_UTTERANCE_END_MS, MAX_UTTERANCE_END_MS)


def _client_id(query: Query) -> str | None:
    client_id = query.get("client_id")
    if client_id is not None and _CLIENT_ID.fullmatch(client_id) is None:
        raise bad_parameter("client_id", "it must have 1 to 128 visible ASCII characters")
    return client_id


def _resume(query: Query) -> Resume | None:
    session_id, token = query.get("session_id"), query.get("resume_token")
    if session_id is None and token is None:
        return None
    if not session_id or not token:
        raise bad_parameter("resume_token", "to resume, both session_id and resume_token are needed")
    if _SESSION_ID.fullmatch(session_id) is None:
        raise bad_parameter("session_id", "it is no session id, as SessionStarted has it")
    finals_from = _integer(query, "finals_from", 0, _MAX_SEGMENTS) if "finals_from" in query else 0
    return Resume(session_id, token, finals_from)


def _boolean(query: Query, name: str, *, default: bool) -> bool:
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in _TRUTH:
        raise bad_parameter(name, f"{_shown(text)} is neither true nor false")
    return _TRUTH[text.lower()]


def _integer(query: Query, name: str, low: int, high: int) -> int:
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise bad_parameter(name, f"{_shown(text)} is no whole number from {low} to {high}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text[:64])
