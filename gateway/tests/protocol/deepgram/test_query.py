"""The query says what a client wants, in the habits of Deepgram's SDKs."""

import contextlib
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import StreamOptions
from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.deepgram.errors import close_code
from whisperline_gateway.protocol.deepgram.query import MAX_KEYTERM_BYTES, MAX_KEYTERMS, parse_query
from whisperline_gateway.protocol.messages import Open
from whisperline_gateway.protocol.pcm import PcmFormat
from whisperline_gateway.protocol.tokens import SignedSession, TokenIssuer, verify

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
RAW = {"encoding": "linear16", "sample_rate": "16000"}


def parse(query: Mapping[str, str | list[str]]) -> Open:
    return parse_query({name: [values] if isinstance(values, str) else values for name, values in query.items()})


def test_an_empty_query_is_a_wav_file_with_deepgrams_defaults() -> None:
    """A client receives only finals by default."""
    request = parse({})
    assert (request.pcm, request.acks, request.vad_events, request.resume) == (None, False, False, None)
    options = request.options
    assert (options.language, options.interim_results, options.priority) == ("en", False, "live")
    assert (options.endpointing_ms, options.utterance_end_ms) == (None, None)


def test_what_an_sdk_sends_is_understood() -> None:
    """The query of Deepgram's own example needs no change; what is not known is ignored."""
    query: dict[str, str | list[str]] = {
        **RAW, "channels": "1", "model": "nova-3", "language": "en-US", "smart_format": "true", "punctuate": "true",
        "interim_results": "True", "utterance_end_ms": "1000", "vad_events": "true", "endpointing": "10",
        "keyterm": ["whisper", "Ott"], "no_delay": "true",
    }  # fmt: skip
    request = parse(query)
    assert request.pcm == PcmFormat(16_000, 1)
    assert request.options.language == "en"
    assert request.options.interim_results
    assert request.vad_events
    assert request.options.endpointing_ms == 10
    assert request.options.keyterms == ("whisper", "Ott")
    assert request.options.utterance_end_ms == 1000


@pytest.mark.parametrize(
    ("text", "language"),
    [("de", "de"), ("pt-BR", "pt"), ("zh-Hans-CN", "zh"), ("multi", None), ("auto", None), ("", "en")],
)
def test_languages(text: str, language: str | None) -> None:
    """The region of a language is dropped, and multi means that the language is detected. Empty is the default."""
    assert parse({"language": text}).options.language == language


@pytest.mark.parametrize(
    ("values", "language", "languages"),
    [
        (["true"], None, ()),
        (["false"], "fr", ()),
        ([""], "fr", ()),
        (["de", "en-US", "de"], None, ("de", "en")),
        (["true", "de"], None, ("de",)),
    ],
)
def test_detected_languages(values: list[str], language: str | None, languages: tuple[str, ...]) -> None:
    """As for Deepgram's recordings, detect_language is a truth value or repeated with the languages to choose from."""
    options = parse({"language": "fr", "detect_language": values}).options
    assert (options.language, options.languages) == (language, languages)


def test_keyterms() -> None:
    """Terms to expect come in two parameters: in words, without what is only formatting, each once."""
    query = {
        "keyterm": ["account  number", "Ott", "", "Zürich"],
        "keywords": ["Whisperline:5", "Ott:1.5", "quiet:0", "10:30", "ratio:x", "c:d:2"],
    }
    assert parse(query).options.keyterms == (
        "account number", "Ott", "Zürich", "Whisperline", "quiet", "10", "ratio:x", "c:d",
    )  # fmt: skip


def test_the_largest_options_fit_into_a_url() -> None:
    """A resume token with the most key terms, in the most expensive characters, fits into the line of a request."""
    terms = [f'"{n:02}' + "\\" * 7 for n in range(MAX_KEYTERMS)]
    assert len("".join(terms)) == MAX_KEYTERM_BYTES
    options = parse({"keyterm": terms}).options
    session = SignedSession(session_id=SESSION, client_id="c" * 128, sample_rate=48_000, channels=8, options=options)
    token = TokenIssuer(session, b"secret").issue(2**40, 2**32)
    query = {"session_id": SESSION, "resume_token": token, "keyterm": terms}
    assert len(urlencode(query, doseq=True)) < 8_000  # the websockets library reads lines of up to 8192 bytes
    assert verify(token, b"secret", session_id=SESSION, now_s=2**32, lifetime_s=1).session.options == options


@pytest.mark.parametrize(
    ("text", "ms"), [("false", 5000), ("true", None), ("", None), ("0", 10), ("25", 25), ("300", 300), ("60000", 5000)]
)
def test_endpointing(text: str, ms: int | None) -> None:
    """Every value that Deepgram accepts is accepted, and limited to our range; the default is the speaker's end."""
    assert parse({"endpointing": text}).options.endpointing_ms == ms


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"encoding": "opus"}, "encoding"),
        ({"encoding": "linear16"}, "sample_rate"),
        ({**RAW, "sample_rate": "96000"}, "sample_rate"),
        ({**RAW, "sample_rate": "16k"}, "sample_rate"),
        ({**RAW, "sample_rate": "٣٢٠٠٠"}, "sample_rate"),
        ({**RAW, "channels": "9"}, "channels"),
        ({**RAW, "channels": "0"}, "channels"),
        ({"interim_results": "yes please"}, "interim_results"),
        ({"acks": ""}, "acks"),
        ({"language": "english"}, "language"),
        ({"detect_language": "english"}, "detect_language"),
        ({"detect_language": ["de", "false"]}, "detect_language"),
        ({"detect_language": ["de"] * 101}, "detect_language"),
        ({"keyterm": [f"term {n}" for n in range(MAX_KEYTERMS + 1)]}, "keyterm"),
        ({"keyterm": "ü" * (MAX_KEYTERM_BYTES // 2 + 1)}, "keyterm"),
        ({"keyterm": "<|endoftext|>"}, "keyterm"),
        ({"keyterm": "a\x00b"}, "keyterm"),
        ({"keyterm": "\ud800"}, "keyterm"),
        ({"keywords": "noise:-5"}, "keywords"),
        ({"keywords": "w" * (MAX_KEYTERM_BYTES + 1)}, "keywords"),
        ({"endpointing": "-1"}, "endpointing"),
        ({"endpointing": "9" * 5000}, "endpointing"),
        ({"utterance_end_ms": "100"}, "utterance_end_ms"),
        ({"priority": "urgent"}, "priority"),
        ({"client_id": "a b"}, "client_id"),
        ({"session_id": "s"}, "resume_token"),
        ({"resume_token": "t"}, "resume_token"),
        ({"session_id": "s\r\n", "resume_token": "t"}, "session_id"),
        ({"session_id": SESSION, "resume_token": "t", "finals_from": "-1"}, "finals_from"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(query: dict[str, str | list[str]], name: str) -> None:
    """The error says which parameter is wrong."""
    with pytest.raises(ClientError) as caught:
        parse(query)
    assert caught.value.code == "BAD_PARAMETER"
    assert caught.value.message.startswith(f"{name}:")
    assert close_code(caught.value) == 1008


NAMES = [
    "encoding", "sample_rate", "channels", "language", "detect_language", "keyterm", "keywords", "endpointing",
    "utterance_end_ms", "client_id", "acks",
]  # fmt: skip
VALUES = st.lists(st.text() | st.from_regex(r"[a-z]{2}:?-?[0-9.]*", fullmatch=True), min_size=1, max_size=3)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES))
def test_no_query_breaks_the_reader(query: dict[str, list[str]]) -> None:
    """Any query gives a request, which the session's records can carry, or a ClientError."""
    with contextlib.suppress(ClientError):
        options = parse_query(query).options
        assert StreamOptions.model_validate_json(options.model_dump_json()) == options
