"""The query of Deepgram's live API, read into types. docs/protocol.md has the parameters and their meaning.

Unknown parameters are ignored, as Deepgram does. An invalid value of a known parameter is an error. If a parameter that
has one value is repeated, the last one counts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from whisperline_contracts import StreamOptions
from whisperline_contracts.audio import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from whisperline_gateway.protocol.deepgram.errors import bad_parameter
from whisperline_gateway.protocol.messages import Open, Resume
from whisperline_gateway.protocol.pcm import PcmFormat

MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 10, 5_000
MIN_UTTERANCE_END_MS, MAX_UTTERANCE_END_MS = 1_000, 10_000
MAX_KEYTERMS = 100
# Of all key terms together, in UTF-8. Whisper's prompt takes 223 tokens, and a token holds about 4 bytes of most
# languages. The terms are in every record of the session and in its resume tokens, which must fit into a URL.
MAX_KEYTERM_BYTES = 1_000
MAX_LANGUAGES = 100
_MAX_SEGMENTS = 2**31
_LANGUAGE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{2,8})*", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d{1,6}(\.\d{1,6})?", re.ASCII)
_SESSION_ID = re.compile(r"[0-9a-f-]{36}")
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

Query = Mapping[str, str]


def parse_query(parameters: Mapping[str, Sequence[str]]) -> Open:
    """Read the query: the values of each parameter, in order. Raises `ClientError` BAD_PARAMETER."""
    query = {name: values[-1] for name, values in parameters.items()}
    client_id = query.get("client_id")
    if client_id is not None and _CLIENT_ID.fullmatch(client_id) is None:
        raise bad_parameter("client_id", "it must have 1 to 128 visible ASCII characters")
    detected = _detected_languages(parameters.get("detect_language", ()))
    options = StreamOptions(
        language=_language(query) if detected is None else None,
        languages=detected or (),
        keyterms=_keyterms(parameters.get("keyterm", ()), parameters.get("keywords", ())),
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
    language = query.get("language") or "en"  # a form sends an empty value where nothing was chosen
    return None if language in ("multi", "auto") else _language_code("language", language, "multi")


def _detected_languages(values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the languages that detection may choose from (empty: all), or None if `language` is to be used.

    As for Deepgram's recordings, `detect_language` is true, false, or repeated, with a language tag each time.
    """
    values = [value for value in values if value]
    if len(values) > MAX_LANGUAGES:
        raise bad_parameter("detect_language", f"it is given {len(values)} times, at most {MAX_LANGUAGES} will do")
    truths = {_TRUTH.get(value.lower()) for value in values}
    if None not in truths:
        return () if True in truths else None
    codes = [
        _language_code("detect_language", value, "true or false") for value in values if value.lower() not in _TRUTH
    ]
    if False in truths:
        raise bad_parameter("detect_language", f"it is both false and {_shown(codes[0])}")
    return tuple(dict.fromkeys(codes))


def _language_code(name: str, tag: str, alternative: str) -> str:
    match = _LANGUAGE.fullmatch(tag)
    if match is None:
        raise bad_parameter(name, f"{_shown(tag)} is neither a language tag (en, de, en-US) nor {alternative}")
    return match[1].lower()  # Whisper knows languages, not regions


def _keyterms(keyterms: Sequence[str], keywords: Sequence[str]) -> tuple[str, ...]:
    """Return the words and phrases to expect, from `keyterm` (Nova-3) and from `keywords` (the older models).

    Whisper takes words to expect without weights, so the intensifier of `keywords` only matters where it is below 0,
    which would suppress the word.
    """
    values = [("keyterm", value) for value in keyterms]
    for value in keywords:
        word, colon, intensifier = value.rpartition(":")
        if not colon or _NUMBER.fullmatch(intensifier) is None:
            word = value
        elif float(intensifier) < 0:
            raise bad_parameter("keywords", f"{_shown(value)} suppresses a word, which is not supported")
        values.append(("keywords", word))
    terms: dict[str, str] = {}  # by the term: the parameter that it came in
    for name, value in values:
        term = " ".join(value.split())
        if not term.isprintable() or "<|" in term:  # "<|" begins Whisper's special tokens
            raise bad_parameter(name, f"{_shown(term)} has characters that no text has")
        if term:
            terms.setdefault(term, name)
    if not terms:
        return ()
    name, n_bytes = next(iter(terms.values())), len("".join(terms).encode())
    if len(terms) > MAX_KEYTERMS:
        raise bad_parameter(name, f"there are {len(terms)} terms, at most {MAX_KEYTERMS} will do")
    if n_bytes > MAX_KEYTERM_BYTES:
        raise bad_parameter(name, f"the terms have {n_bytes} bytes together, at most {MAX_KEYTERM_BYTES} will do")
    return tuple(terms)


def _priority(query: Query) -> Literal["live", "file"]:
    match query.get("priority", "live"):
        case "live":
            return "live"
        case "file":
            return "file"
        case other:
            raise bad_parameter("priority", f"{_shown(other)} is neither live nor file")


def _endpointing_ms(query: Query) -> int | None:
    match (query.get("endpointing") or "true").lower():
        case "true":
            return None  # the segment closes when the speaker is done
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
