"""Comparison with the reference's answers on real speech, recorded by `reference_tools.recording`.

`reference/base.json` is of the multilingual `base`: greedy tokens by transformers; translation, detection, prompts and
word times by openai-whisper. `reference/beams.json` is its beam search with `tiny.en`, and `reference/fallback.json`
tells when its `transcribe` takes greedy text of `tiny.en` for good. Clips are of the speech folder and of Debian's
asterisk-core-sounds-{fr,es,it}-wav; those that are not there are left out.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_tools.parity import decode, word_errors
from reference_tools.recording import read_prompts
from whisperline_models.engine.fallback import Verdict, has_loop, judge
from whisperline_models.engine.requests import Request
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.gate import Clip, read_manifest
from whisperline_models.weights import Checkpoint

Row = dict[str, Any]
EVERY = 6  # take every sixth row of greedy text; all of them take minutes
MOST_WORD_ERROR_S = 0.1  # median
PROBABILITY_TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def base(multilingual: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The multilingual model in float32."""
    return Engine(export_version(multilingual, tmp_path_factory.mktemp("base") / "version", "float32"), threads=2)


@pytest.fixture(scope="module")
def clips(speech_dir: Path) -> dict[str, Clip]:
    """Every available clip, by its id."""
    found = [clip for code in ("fr", "es", "it") for clip in read_prompts(code, n_clips=10_000)]
    if (speech_dir / "manifest.jsonl").is_file():
        languages = {"en", "fr", "es", "de", "ja", "zh", "pt", "zxx"}
        found += read_manifest(speech_dir, languages, longest_s=600)
    return {clip.id: clip for clip in found}


@pytest.fixture
def rows(recorded: Callable[[str], list[Row]], clips: dict[str, Clip]) -> Callable[[str, str], list[Row]]:
    """Return the recorded rows of a kind that have an answer of this name and whose clips are available."""

    def of(kind: str, answer: str) -> list[Row]:
        found = [row for row in recorded(kind) if answer in row and row["clip"] in clips]
        return found or pytest.skip("no clip is at hand: see WHISPERLINE_SPEECH_DIR and asterisk-core-sounds-it-wav")

    return of


def ask(row: Row, clips: dict[str, Clip], engine: Engine) -> Request:
    """Return the row as a request of the interface."""
    audio = clips[row["clip"]].read()[: 30 * 16_000]
    return Request.parse(audio, json.dumps(row["options"]).encode(), engine.tokenizer.languages)


def _assert_decoded(rows: list[Row], clips: dict[str, Clip], engine: Engine) -> None:
    for row, ours in zip(rows, decode(engine, [ask(row, clips, engine) for row in rows]), strict=True):
        theirs = row["decode"]
        assert (ours.language, list(ours.tokens)) == (theirs["language"], theirs["tokens"]), row["clip"]
        assert ours.avg_logprob == pytest.approx(theirs["avg_logprob"], abs=PROBABILITY_TOLERANCE)
        assert ours.no_speech_prob == pytest.approx(theirs["no_speech_prob"], abs=PROBABILITY_TOLERANCE)


def _assert_greedy(rows: list[Row], clips: dict[str, Clip], engine: Engine) -> None:
    decoded = decode(engine, [ask(row, clips, engine) for row in rows])
    found = {row["clip"]: list(each.tokens) for row, each in zip(rows, decoded, strict=True)}
    assert found == {row["clip"]: row["greedy"]["text"] for row in rows}


def test_other_languages_are_the_references_token_for_token(
    base: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """Every sixth French, Spanish and Italian clip, including telephone prompts, has the reference's greedy tokens."""
    _assert_greedy(rows("base", "greedy")[::EVERY], clips, base)


def test_options_give_what_they_give_with_the_reference(
    base: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """Mixed in one batch, requests with all kinds of options have the reference's tokens and probabilities."""
    _assert_decoded(rows("base", "decode")[::-3], clips, base)


def test_beam_search_finds_what_the_references_does(
    exact: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """With beams, patience, length penalty, timestamps and a prompt, texts are the reference's token for token."""
    _assert_decoded(rows("beams", "decode")[::EVERY], clips, exact)


@pytest.mark.oracle
def test_beam_search_always_finds_what_the_references_does(
    exact: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """All recorded rows of beam search have the reference's tokens and probabilities."""
    _assert_decoded(rows("beams", "decode"), clips, exact)


@pytest.mark.oracle
def test_every_recorded_clip_is_the_references_token_for_token(
    base: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """All recorded rows of both kinds have the reference's tokens."""
    _assert_greedy(rows("base", "greedy"), clips, base)
    _assert_decoded(rows("base", "decode"), clips, base)


def test_words_are_where_the_reference_hears_them(
    base: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """Starts and ends of words are within 100 ms of the reference's in the median."""
    asked = [(row, ask(row, clips, base)) for row in rows("base", "words")]
    gaps = [gap for row, request in asked for gap in word_errors(base, request, row["greedy"]["text"], row["words"])]
    assert len(gaps) > 50
    assert np.median(gaps) <= MOST_WORD_ERROR_S


def test_a_text_that_the_reference_decodes_again_is_not_taken_for_good(
    exact: Engine, clips: dict[str, Clip], rows: Callable[[str, str], list[Row]]
) -> None:
    """A text that the reference's fallback refuses is not judged good, and every other is judged good or silent."""
    tokenizer, asked = exact.tokenizer, rows("fallback", "fallback")
    requests = [ask(row, clips, exact) for row in asked]
    for row, request, ours in zip(asked, requests, decode(exact, requests), strict=True):
        theirs = row["fallback"]
        text_tokens = [token for token in ours.tokens if token < tokenizer.eot]
        verdict = judge(ours, tokenizer.decode(text_tokens), text_tokens, request.audio.size / 16_000)
        assert list(ours.tokens) == theirs["tokens"], row["clip"]
        assert ours.avg_logprob == pytest.approx(theirs["avg_logprob"], abs=PROBABILITY_TOLERANCE)
        assert ours.no_speech_prob == pytest.approx(theirs["no_speech_prob"], abs=PROBABILITY_TOLERANCE)
        if theirs["silent"]:
            assert verdict is Verdict.SILENT, row["clip"]
        elif theirs["falls_back"]:
            assert verdict is not Verdict.GOOD, row["clip"]
        else:
            assert verdict in {Verdict.GOOD, Verdict.SILENT} or has_loop(text_tokens), row["clip"]
