"""The query of Deepgram's live API, read into types. docs/protocol.md has the parameters and their meaning.

Unknown parameters are ignored, as Deepgram does. An invalid value of a known parameter is an error.
"""

import re
from collections.abc import Mapping
from typing import Literal

from whisperline_contracts import StreamOptions
from whisperline_contracts.audio import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from whisperline_gateway.protocol.deepgram.errors import bad_parameter
from whisperline_gateway.protocol.messages import Open, Resume
from whisperline_gateway.protocol.pcm import PcmFormat

MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 100, 5_000
MIN_UTTERANCE_END_MS, MAX_UTTERANCE_END_MS = 1_000, 10_000
_MAX_SEGMENTS = 2**31
_LANGUAGE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{2,8})*", re.IGNORECASE)
_SESSION_ID = re.compile(r"[0-9a-f-]{36}")
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

Query = Mapping[str, str]


def parse_query(query: Query) -> Open:
    """Read the query. Raises `ClientError` BAD_PARAMETER."""
    client_id = query.get("client_id")
    if client_id is not None and _CLIENT_ID.fullmatch(client_id) is None:
        raise bad_parameter("client_id", "it must have 1 to 128 visible ASCII characters")
    options = StreamOptions(
        language=_language(query),
        interim_results=_boolean(query, "interim_results"),
        priority=_priority(query),
        endpointing_ms=_endpointing_ms(query),
        utterance_end_ms=_utterance_end_ms(query),
    )
    return Open(
        pcm=_pcm(query),
        options=options,
        client_id=client_id,
        acks=_boolean(query, "acks"),
        vad_events=_boolean(query, "vad_events"),
        resume=_resume(query),
    )


def _pcm(query: Query) -> PcmFormat | None:
    encoding = query.get("encoding")
    if encoding is None:
        return None
    if encoding != "linear16":
        raise bad_parameter("encoding", f"{_shown(encoding)} is not supported; use linear16, or none for a WAV file")
    if "sample_rate" not in query:
        raise bad_parameter("sample_rate", "it is required with encoding=linear16")
    sample_rate = _integer(query, "sample_rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    return PcmFormat(sample_rate, _integer(query, "channels", 1, MAX_CHANNELS) if "channels" in query else 1)


def _language(query: Query) -> str | None:
    if _boolean(query, "detect_language"):
        return None
    language = query.get("language", "en")
    if language in ("multi", "auto"):
        return None
    match = _LANGUAGE.fullmatch(language)
    if match is None:
        raise bad_parameter("language", f"{_shown(language)} is neither a language tag (en, de, en-US) nor multi")
    return match[1].lower()  # Whisper knows languages, not regions


def _priority(query: Query) -> Literal["live", "file"]:
    match query.get("priority", "live"):
        case "live":
            return "live"
        case "file":
            return "file"
        case other:
            raise bad_parameter("priority", f"{_shown(other)} is neither live nor file")


def _endpointing_ms(query: Query) -> int | None:
    match query.get("endpointing", "true").lower():
        case "true":
            return StreamOptions().endpointing_ms
        case "false":
            return MAX_ENDPOINTING_MS
        case _:
            # Deepgram accepts any length, so a value outside our range becomes the nearest one inside it.
            wanted = _integer(query, "endpointing", 0, 600_000)
            return min(max(wanted, MIN_ENDPOINTING_MS), MAX_ENDPOINTING_MS)


def _utterance_end_ms(query: Query) -> int | None:
    if query.get("utterance_end_ms", "false").lower() == "false":
        return None
    return _integer(query, "utterance_end_ms", MIN_UTTERANCE_END_MS, MAX_UTTERANCE_END_MS)


def _resume(query: Query) -> Resume | None:
    session_id, token = query.get("session_id"), query.get("resume_token")
    if session_id is None and token is None:
        return None
    if not session_id or not token:
        raise bad_parameter("resume_token", "to resume a session, both session_id and resume_token are required")
    if _SESSION_ID.fullmatch(session_id) is None:
        raise bad_parameter("session_id", "it is not the id of a session, which SessionStarted has")
    finals_from = _integer(query, "finals_from", 0, _MAX_SEGMENTS) if "finals_from" in query else 0
    return Resume(session_id, token, finals_from)


def _boolean(query: Query, name: str) -> bool:
    text = query.get(name, "false")
    if text.lower() not in _TRUTH:
        raise bad_parameter(name, f"{_shown(text)} is neither true nor false")
    return _TRUTH[text.lower()]


def _integer(query: Query, name: str, low: int, high: int) -> int:
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise bad_parameter(name, f"{_shown(text)} is not a whole number from {low} to {high}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text[:64])
