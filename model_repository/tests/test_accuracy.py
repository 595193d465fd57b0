"""Word error rates, and what is heard where nothing is said."""

import json
from pathlib import Path

import pytest
from jiwer import wer
from whisperline_models.engine.requests import Request
from whisperline_models.engine.transcription import Engine
from whisperline_models.speech import Clip

REFERENCE = Path(__file__).with_name("reference_tokens.json")  # greedy over 30 s, by transformers
SAMPLE = 40  # clips, spread over the set
MOST_LOSS = 0.003  # of the word error rate, by small windows and 8 bit weights
LONGEST_PIECE_S = 28
BATCH = 16

whisper_normalizer = pytest.importorskip("whisper_normalizer.english", reason="pip install whisper-normalizer")


def _word_error_rate(clips: list[Clip], texts: list[str]) -> float:
    """After Whisper's own normalisation of English."""
    normalize = whisper_normalizer.EnglishTextNormalizer()
    pairs = [(normalize(clip.text), normalize(text)) for clip, text in zip(clips, texts, strict=True)]
    return float(wer([said for said, _ in pairs], [heard for _, heard in pairs]))


def _requests(clips: list[Clip], engine: Engine) -> list[Request]:
    return [Request.parse(clip.read(), b"{}", engine.vocabulary.languages) for clip in clips]


def _as_served(clips: list[Clip], engine: Engine) -> list[str]:
    requests = _requests(clips, engine)
    batches = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
    return [result.text for batch in batches for result in engine.transcribe(batch)]


def test_serving_costs_no_accuracy(served: Engine, english: list[Clip]) -> None:
    """Small windows, guards and 8 bit weights add at most 0.3 points to the reference's word error rate."""
    reference = json.loads(REFERENCE.read_text())
    clips = [clip for clip in english if clip.duration_s >= 2 and clip.id in reference]
    clips = clips[:: max(1, len(clips) // SAMPLE)][:SAMPLE]
    theirs = [served.vocabulary.decode(reference[clip.id]) for clip in clips]
    assert _word_error_rate(clips, _as_served(clips, served)) <= _word_error_rate(clips, theirs) + MOST_LOSS


def test_what_is_no_speech_gives_no_text(served: Engine, without_speech: list[Clip]) -> None:
    """Silence, noise, music, tones and animals: nothing is said of any piece, with timestamps or without."""
    for clip in without_speech:
        audio = clip.read()[: LONGEST_PIECE_S * 16000]
        options = (b"{}", b'{"timestamps": true, "words": true}')
        requests = [Request.parse(audio, option, served.vocabulary.languages) for option in options]
        results = served.transcribe(requests)
        assert [(result.text, result.tokens, result.words) for result in results] == [("", (), ())] * 2, clip.id
