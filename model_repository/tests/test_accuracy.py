"""Word error rates on speech, and silence on clips without speech."""

import json
from pathlib import Path

from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.gate import Clip, word_error_rate

REFERENCE = Path(__file__).with_name("reference_tokens.json")  # greedy over 30 s, by transformers
SHORTEST_S = 2.0
MOST_LOSS = 0.003  # the largest rise of the word error rate from small windows and 8-bit weights
LONGEST_PIECE_S = 28
BATCH = 16


def _as_served(clips: list[Clip], engine: Engine) -> dict[str, Result]:
    requests = [Request.parse(clip.read(), b"{}", engine.tokenizer.languages) for clip in clips]
    batches = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
    results = [result for batch in batches for result in engine.transcribe(batch)]
    return {clip.id: result for clip, result in zip(clips, results, strict=True)}


def test_serving_costs_no_accuracy(served: Engine, english: list[Clip]) -> None:
    """Small windows, guards and 8 bit weights add at most 0.3 points to the reference's word error rate."""
    reference = json.loads(REFERENCE.read_text())
    clips = [clip for clip in english if clip.duration_s >= SHORTEST_S and clip.id in reference]
    theirs = {clip.id: served.tokenizer.decode(reference[clip.id]) for clip in clips}
    ours = {clip: result.text for clip, result in _as_served(clips, served).items()}
    assert word_error_rate(clips, ours) <= word_error_rate(clips, theirs) + MOST_LOSS


def test_non_speech_gives_no_text(served: Engine, without_speech: list[Clip]) -> None:
    """Silence, noise, music, tones and animals give no text, with timestamps or without."""
    for clip in without_speech:
        audio = clip.read()[: LONGEST_PIECE_S * 16000]
        options = (b"{}", b'{"timestamps": true, "words": true}')
        requests = [Request.parse(audio, option, served.tokenizer.languages) for option in options]
        results = served.transcribe(requests)
        assert [(result.text, result.tokens, result.words) for result in results] == [("", (), ())] * 2, clip.id
