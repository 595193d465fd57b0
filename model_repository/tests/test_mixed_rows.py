"""Rows of many kinds in one batch, each with its own language, task, prompt, lane and temperature."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.gate import Clip, read_manifest
from whisperline_models.weights import Checkpoint

OPTIONS: list[tuple[str, dict[str, object]]] = [  # the language of a clip, and the options for it
    ("en", {"language": "en", "words": True}),
    ("en", {"prompt": "Minutes taken by Dr. Ott.", "timestamps": True, "lane": "file"}),
    ("fr", {"languages": ["fr", "es", "de"]}),
    ("fr", {"language": "fr", "task": "translate", "lane": "file"}),
    ("es", {"hotwords": ["Ott", "Whisperline"], "prompt": "So far. " * 120}),
    ("es", {"language": "es", "temperature": 0, "lane": "partial"}),
    ("de", {"language": "en", "temperature": [0.6, 0.8], "timestamps": True}),
    ("ja", {"words": True, "timestamps": True}),
    ("en", {"language": "en", "beam_size": 5, "words": "rough"}),
    ("fr", {"beam_size": 2, "patience": 2, "timestamps": True, "lane": "partial"}),
    ("en", {"beam_size": 5, "prefix": "And", "prefix_ms": 300, "length_penalty": 0.5, "lane": "file"}),
    ("zxx", {"lane": "partial"}),
]


@pytest.fixture(scope="module")
def base(multilingual: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The multilingual model as it is served."""
    return Engine(export_version(multilingual, tmp_path_factory.mktemp("base") / "version", "int8"), threads=2)


@pytest.fixture(scope="module")
def rows(base: Engine, speech_dir: Path, english: list[Clip]) -> list[tuple[Request, Result]]:
    """A request of each kind, with its result when it runs alone."""
    clips = {code: read_manifest(speech_dir, {code}, longest_s=14) for code, _ in OPTIONS}
    requests = [
        Request.parse(clips[code][index].read(), json.dumps(options).encode(), base.tokenizer.languages)
        for index, (code, options) in zip((0, 4, 1, 2, 1, 2, 0, 0, 3, 3, 5, 0), OPTIONS, strict=True)
    ]
    return [(request, base.transcribe([request])[0]) for request in requests]


@given(batch=st.lists(st.sampled_from(range(len(OPTIONS))), min_size=2, max_size=9))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_what_it_is_alone(base: Engine, rows: list[tuple[Request, Result]], batch: list[int]) -> None:
    """A row has the same result, whatever kinds of rows share its batch, in any order and number.

    Of probabilities the last bits may differ: sums are taken in another order.
    """
    together = base.transcribe([rows[index][0] for index in batch])
    alone = [rows[index][1] for index in batch]
    assert list(map(_without_probabilities, together)) == list(map(_without_probabilities, alone))
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(_probabilities(one), _probabilities(other), atol=1e-5)


def _without_probabilities(result: Result) -> Result:
    words = tuple(replace(word, confidence=0.0) for word in result.words)
    return replace(result, words=words, avg_logprob=0.0, last_logprob=0.0, no_speech_prob=0.0, language_probs={})


def _probabilities(result: Result) -> list[float]:
    confidences = [word.confidence for word in result.words]
    return [
        result.avg_logprob,
        result.last_logprob,
        result.no_speech_prob,
        *result.language_probs.values(),
        *confidences,
    ]


def test_a_retry_changes_nothing(base: Engine, rows: list[tuple[Request, Result]]) -> None:
    """A repeated request has the same result, even if its text is sampled."""
    again = [base.transcribe([request])[0] for request, _ in rows[-4:]]
    assert again == [result for _, result in rows[-4:]]


def test_each_row_is_under_its_own_options(rows: list[tuple[Request, Result]]) -> None:
    """Languages are detected, translations are English, words are timed on request, and noise gives no text."""
    english, prompted, french, translated, *_, japanese, searched, _, _, noise = [result for _, result in rows]
    assert (english.language, prompted.language, french.language, japanese.language) == ("en", "en", "fr", "ja")
    assert len(english.words) == len(english.text.split())
    assert not prompted.words
    assert len(searched.words) == len(searched.text.split())
    assert list(french.language_probs) == sorted(
        ("fr", "es", "de"), key=french.language_probs.__getitem__, reverse=True
    )
    assert sum(french.language_probs.values()) == pytest.approx(1)
    assert len(japanese.language_probs) == 5
    assert english.language_probs == {}
    assert translated.text.isascii()
    assert translated.language == "fr"
    assert noise.text == ""
    assert np.isfinite([result.avg_logprob for _, result in rows]).all()
