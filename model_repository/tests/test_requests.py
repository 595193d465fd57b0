"""The options of a request, and the refusal of invalid ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_models.engine.errors import RequestError
from whisperline_models.engine.requests import Request

AUDIO = np.zeros(16000, np.int16)
LANGUAGES = ("en", "fr")


def parse(options: object, languages: tuple[str, ...] = LANGUAGES) -> Request:
    return Request.parse(AUDIO, json.dumps(options).encode(), languages)


def test_options_left_out_have_their_defaults() -> None:
    """Without options, a request is a final, in the detected language, without times."""
    request = parse({})
    assert (request.language, request.task, request.prompt, request.hotwords) == (None, "transcribe", "", "")
    assert (request.languages, request.prefix, request.prefix_ms) == ((), "", 0)
    assert (request.timestamps, request.words, request.lane) == (False, False, "final")
    assert (request.beam_size, request.patience, request.length_penalty) == (None, 1.0, None)
    assert request.temperatures == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def test_options_are_read() -> None:
    """Each option of the interface sets its field of the request."""
    request = parse({"language": "fr", "task": "translate", "timestamps": True, "words": True, "lane": "file"})
    assert (request.language, request.task, request.lane) == ("fr", "translate", "file")
    assert (request.timestamps, request.words) == (True, True)
    request = parse({"prompt": " Dr. Ott. ", "hotwords": ["Ott ", "Whisperline"], "temperature": 0.4})
    assert (request.prompt, request.hotwords, request.temperatures) == (
        "Dr. Ott.",
        "Glossary: Ott, Whisperline.",
        (0.4,),
    )
    assert parse({"hotwords": "Ott", "temperature": [0, 0.5]}).temperatures == (0.0, 0.5)
    assert (parse({"hotwords": "Ott"}).hotwords, parse({"hotwords": ["", " "]}).hotwords) == ("Ott", "")
    request = parse({"prefix": "So far", "prefix_ms": 700, "words": "rough"})
    assert (request.prefix, request.prefix_ms, request.words) == ("So far", 700, "rough")
    request = parse({"beam_size": 5, "patience": 2, "length_penalty": 0})
    assert (request.beam_size, request.patience, request.length_penalty) == (5, 2.0, 0.0)
    request = parse({"languages": ["fr", "en", "fr"]})
    assert (request.language, request.languages) == (None, ("fr", "en"))
    assert parse({"languages": ["fr"]}).language == "fr"
    assert parse({"prompt": None, "hotwords": None, "language": None}).prompt == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beam": 5}, "options.beam is not known, only beam_size, hotwords"),
        ({"beam_size": 6}, "options.beam_size: 6 will not do, send a whole number from 1 to 5, or null"),
        ({"beam_size": True}, "options.beam_size: true has the wrong type"),
        ({"patience": 0}, "options.patience: 0 will not do, send a number from 0.2 to 4"),
        ({"length_penalty": "1"}, 'options.length_penalty: "1" will not do, send a number from 0 to 1'),
        ({"\ud800": 5}, r"options.\ud800 is not known"),
        ({"words": 1}, "options.words: 1 has the wrong type, send true, false or"),
        ({"language": "de"}, 'this model has no "de", only en, fr'),
        ({"languages": ["en", "de"]}, 'options.languages: this model has no "de", only en, fr'),
        ({"languages": "en"}, 'options.languages: "en" has the wrong type, send a list of the language codes'),
        ({"prefix": "So far"}, "options.prefix and options.prefix_ms: send both or neither"),
        ({"prefix_ms": 5}, "options.prefix and options.prefix_ms: send both or neither"),
        ({"prefix": "So far", "prefix_ms": 1000}, "options.prefix_ms: 1000 leaves no new audio: it has 1000 ms"),
        ({"prefix": "So far", "prefix_ms": -1}, "options.prefix_ms: -1 will not do"),
        ({"prefix": "So far", "prefix_ms": True}, "options.prefix_ms: true has the wrong type"),
        ({"language": 3}, "options.language: 3 has the wrong type, send a language code, or null"),
        ({"task": "summarise"}, 'options.task: "summarise" will not do, send transcribe or translate'),
        ({"task": []}, "options.task: [] will not do"),
        ({"lane": "fast"}, 'options.lane: "fast" will not do, send final or partial or file'),
        ({"temperature": 1.5}, "options.temperature: 1.5 will not do, send a number from 0 to 1"),
        ({"temperature": []}, "options.temperature: [] will not do"),
        ({"temperature": [0, True]}, "options.temperature: [0, true] will not do"),
        ({"temperature": float("nan")}, "options.temperature: NaN will not do"),
        ({"prompt": "a" * 9000}, "has 9000 characters, send text of up to 8192 characters"),
        ({"prompt": "<|endoftext|>"}, "holds <|, with which special tokens begin"),
        ({"prompt": "\ud800"}, "surrogates not allowed"),
        ({"hotwords": ["Ott", 3]}, 'options.hotwords: ["Ott", 3] has the wrong type'),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options: object, reason: str) -> None:
    """The reason names the option, the value that was sent, and the allowed ones."""
    with pytest.raises(RequestError, match=re.escape(reason)):
        parse(options)


def test_an_english_model_does_not_translate() -> None:
    """A model that knows only English refuses the task to translate."""
    assert parse({"task": "transcribe"}, ("en",)).task == "transcribe"
    with pytest.raises(RequestError, match=re.escape("options.task: this model knows English alone")):
        parse({"task": "translate"}, ("en",))


@pytest.mark.parametrize("options", [b"{", b"[" * 60_000, b"[]", b"\xff", b" " * 65_537, b"1" * 5_000])
def test_what_is_no_object_of_options_is_refused(options: bytes) -> None:
    """Broken, deeply nested or overlong JSON is refused as the sender's error."""
    with pytest.raises(RequestError, match=r"^options "):
        Request.parse(AUDIO, options, LANGUAGES)


@given(options=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(options: bytes) -> None:
    """Any bytes are parsed or refused with `RequestError`."""
    try:
        request = Request.parse(AUDIO, options, LANGUAGES)
    except RequestError:
        return
    assert request.language in {None, *LANGUAGES}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
_NAMES = (
    *("language", "languages", "task", "prompt", "hotwords", "prefix", "prefix_ms"),
    *("timestamps", "words", "temperature", "beam_size", "patience", "length_penalty", "lane"),
)


@given(options=st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), _JSON, max_size=3))
def test_any_value_is_read_or_refused(options: dict[str, object]) -> None:
    """A value of any kind gives a request that can be decoded, or is refused."""
    try:
        request = parse(options)
    except RequestError:
        return
    assert request.task in {"transcribe", "translate"}
    assert request.lane in {"final", "partial", "file"}
    assert request.temperatures
    assert all(0 <= temperature <= 1 for temperature in request.temperatures)
    assert f"{request.prompt}{request.hotwords}".encode() is not None
