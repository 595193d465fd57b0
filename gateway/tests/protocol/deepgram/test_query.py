"""The query says what a client wants, in the habits of Deepgram's SDKs."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.deepgram.errors import close_code
from whisperline_gateway.protocol.deepgram.query import parse_query
from whisperline_gateway.protocol.pcm import PcmFormat

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
RAW = {"encoding": "linear16", "sample_rate": "16000"}


def test_an_empty_query_is_a_wav_file_with_deepgrams_defaults() -> None:
    """A client receives only finals by default."""
    request = parse_query({})
    assert (request.pcm, request.acks, request.vad_events, request.resume) == (None, False, False, None)
    options = request.options
    assert (options.language, options.interim_results, options.priority) == ("en", False, "live")
    assert (options.endpointing_ms, options.utterance_end_ms) == (None, None)


def test_what_an_sdk_sends_is_understood() -> None:
    """The query of Deepgram's own example needs no change; what is not known is ignored."""
    query = {
        **RAW, "channels": "1", "model": "nova-3", "language": "en-US", "smart_format": "true", "punctuate": "true",
        "interim_results": "True", "utterance_end_ms": "1000", "vad_events": "true", "endpointing": "10",
        "keyterm": "whisper", "no_delay": "true",
    }  # fmt: skip
    request = parse_query(query)
    assert request.pcm == PcmFormat(16_000, 1)
    assert request.options.language == "en"
    assert request.options.interim_results
    assert request.vad_events
    assert request.options.endpointing_ms == 100  # brought into the range that can be had
    assert request.options.utterance_end_ms == 1000


@pytest.mark.parametrize(
    ("text", "language"), [("de", "de"), ("pt-BR", "pt"), ("zh-Hans-CN", "zh"), ("multi", None), ("auto", None)]
)
def test_languages(text: str, language: str | None) -> None:
    """The region of a language is dropped, and multi means that the language is detected."""
    assert parse_query({"language": text}).options.language == language


@pytest.mark.parametrize(("text", "ms"), [("false", 5000), ("true", None), ("0", 100), ("300", 300), ("60000", 5000)])
def test_endpointing(text: str, ms: int) -> None:
    """Every endpointing value that Deepgram accepts is accepted, and limited to our range."""
    assert parse_query({"endpointing": text}).options.endpointing_ms == ms


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
def test_a_value_that_cannot_be_used_is_named(query: dict[str, str], name: str) -> None:
    """The error says which parameter is wrong."""
    with pytest.raises(ClientError) as caught:
        parse_query(query)
    assert caught.value.code == "BAD_PARAMETER"
    assert caught.value.message.startswith(f"{name}:")
    assert close_code(caught.value) == 1008


NAMES = ["encoding", "sample_rate", "channels", "language", "endpointing", "utterance_end_ms", "client_id", "acks"]


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), st.text()))
def test_no_query_breaks_the_reader(query: dict[str, str]) -> None:
    """Any query gives a request or a ClientError."""
    with contextlib.suppress(ClientError):
        parse_query(query)
