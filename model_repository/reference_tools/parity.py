"""Compare an export with the reference: encoder, decoder, greedy text, timestamps and word times.

The reference runs in another environment (`oracle.py`). This module exports the same weights in float32, runs the same
clips and compares the results.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from whisperline_models.engine.audio import CHUNK_LENGTH_S
from whisperline_models.engine.beams import BeamRow
from whisperline_models.engine.decoding import DecodingTask, Row
from whisperline_models.engine.logit_filters import next_filter
from whisperline_models.engine.prompts import build_prompt
from whisperline_models.engine.requests import Request
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version

from reference_tools.ask import ParityError, Question, ask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from whisperline_models.engine.decoding import DecodingResult
    from whisperline_models.engine.slots import Window
    from whisperline_models.gate import Clip
    from whisperline_models.weights import Checkpoint

TOLERANCE = 1e-3  # the largest difference between our outputs in float32 and the oracle's in float64
_BATCH = 16
_DEEP = ("greedy", "outputs", "decode", "words")


@dataclass(frozen=True)
class Parity:
    """The result of a comparison. Texts are compared over all clips, the rest over the first `n_deep`.

    Each error is the largest difference of any element from the oracle's result in float64; `weighed_error` defines
    `encoder_error`. `differing` and `differing_timed` map a clip's id to the oracle's tokens and ours.
    """

    n_clips: int
    n_deep: int
    mel_error: float
    encoder_error: float
    decoder_error: float
    differing: dict[str, tuple[list[int], list[int]]]
    differing_timed: dict[str, tuple[list[int], list[int]]]
    word_errors_s: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """True if outputs are within the tolerance and every greedy text equals the oracle's, token for token."""
        return self.encoder_error <= TOLERANCE and self.decoder_error <= TOLERANCE and not self.differing

    @property
    def median_word_error_s(self) -> float:
        """The median difference of word starts and ends from the reference's, 0 without words."""
        return float(np.median(self.word_errors_s)) if self.word_errors_s else 0.0


def compare(checkpoint: Checkpoint, clips: Sequence[Clip], python: Path, scratch: Path, n_deep: int) -> Parity:
    """Compare on these clips. `python` is the oracle's interpreter. Raises `ParityError` if it cannot run."""
    audio = [clip.read().astype(np.float32) / 32768 for clip in clips]
    questions = [
        Question(clip.language, _DEEP if index < n_deep else ("greedy",), timestamps=True)
        for index, clip in enumerate(clips)
    ]
    answers = ask(checkpoint, list(zip(audio, questions, strict=True)), python, scratch)
    rows, arrays = answers.rows, answers.arrays
    deep = [index for index, row in enumerate(rows) if "decode" in row]

    engine = Engine(export_version(checkpoint, scratch / "version", "float32"))
    requests = [Request(samples, clip.language) for samples, clip in zip(audio, clips, strict=True)]
    greedy = [list(decoded.tokens) for decoded in decode(engine, requests)]
    timed_requests = [replace(requests[index], timestamps=True) for index in deep]
    timed = [list(decoded.tokens) for decoded in decode(engine, timed_requests)]

    wanted = [row["greedy"]["text"] for row in rows]
    wanted_timed = [rows[index]["decode"]["tokens"] for index in deep]
    mel_errors, encoder_errors, decoder_errors = [], [], []
    word_errors_s: list[float] = []
    for index in deep:
        hidden, logits = outputs_of(engine, arrays[f"mel_{index}"], rows[index]["greedy"]["all"])
        mel_errors.append(float(np.abs(arrays[f"mel_{index}"][0] - spectrogram(engine, audio[index])).max()))
        exact, rounded = arrays[f"hidden_{index}"], arrays[f"hidden_float32_{index}"]
        encoder_errors.append(weighed_error(exact, rounded, hidden))
        decoder_errors.append(float(np.abs(arrays[f"logits_{index}"][0] - logits).max()))
        word_errors_s += word_errors(engine, requests[index], wanted[index], rows[index]["words"])
    return Parity(
        n_clips=len(clips),
        n_deep=len(deep),
        mel_error=max(mel_errors),
        encoder_error=max(encoder_errors),
        decoder_error=max(decoder_errors),
        differing=_differing(clips, wanted, greedy),
        differing_timed=_differing(clips[: len(deep)], wanted_timed, timed),
        word_errors_s=tuple(word_errors_s),
    )


def decode(engine: Engine, requests: Sequence[Request]) -> list[DecodingResult]:
    """Decode each request over 30 s, at temperature 0 and without fallback, as the reference's `decode` does."""
    found: list[DecodingResult] = []
    for at in range(0, len(requests), _BATCH):
        rows = [
            (BeamRow if (request.beam_size or 1) > 1 else Row)(
                DecodingTask(
                    window=engine.encoder.window(request.audio, CHUNK_LENGTH_S),
                    prompt=build_prompt(request, engine.tokenizer),
                    language=request.language or "en",
                    timestamps=request.timestamps,
                    beam_size=request.beam_size or 1,
                    patience=request.patience,
                    length_penalty=request.length_penalty,
                ),
                engine.tokenizer,
            )
            for request in requests[at : at + _BATCH]
        ]
        for kind, decoder in ((Row, engine.decoder), (BeamRow, engine.open_beam_decoder())):
            while unfinished := [row for row in rows if type(row) is kind and not row.finished]:
                decoder.step(unfinished[: decoder.n_slots])
        found += [row.result() for row in rows]
    return found


def force(engine: Engine, window: Window, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Feed these tokens one by one, and return the unfiltered logits (N, V) after each."""
    slots, logits = engine.slots, []
    slots.load(0, window)
    for position, token in enumerate(tokens):
        slots.set_input(0, token, position, next_filter([], timestamps=False, tokenizer=engine.tokenizer))
        slots.step(1)
        logits.append(slots.logits(0).copy())
    return np.stack(logits)


def outputs_of(
    engine: Engine, mel: NDArray[np.float32], tokens: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the engine's encoder state for a spectrogram (1, n_mels, 3000), and its logits after each token."""
    return hidden_of(engine, mel), force(engine, engine.encoder.encode(list(mel))[0], tokens)


def hidden_of(engine: Engine, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the engine's encoder state (1, T, state) for a spectrogram (1, n_mels, 2T)."""
    state = mel
    for piece in engine.graphs.encoder:
        state = piece.run([piece.get_outputs()[0].name], {piece.get_inputs()[0].name: state})[0]
    return state


def word_errors(engine: Engine, request: Request, tokens: list[int], words: list[dict[str, Any]]) -> list[float]:
    """Return the differences of word starts and ends from the reference's, in seconds. `tokens` are the text."""
    if not words:
        return []
    language = request.language or "en"
    starts_s = engine.aligner.token_starts(
        engine.encoder.window(request.audio, CHUNK_LENGTH_S), tokens, language, request.audio.size
    )
    split = engine.tokenizer.split_to_word_tokens(tokens, language)
    if [text for text, _ in split] != [word["word"] for word in words]:
        raise ParityError(f"the words are split differently: {split} and {words}")
    bounds = np.cumsum([0, *(len(ids) for _, ids in split)])
    ours = zip(starts_s[bounds[:-1]], starts_s[bounds[1:]], words, strict=True)
    return [abs(gap) for start, end, word in ours for gap in (start - word["start"], end - word["end"])]


def spectrogram(engine: Engine, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the spectrogram (n_mels, 3000) of audio padded to 30 s."""
    return engine.encoder.mel(audio, CHUNK_LENGTH_S)


def weighed_error(exact: NDArray[np.float32], rounded: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    """Return the largest error of our states (B, T, state), reduced for frames in which the oracle's own is large.

    A frame may be so ill-conditioned that rounding alone moves it past the tolerance. (In one frame of a clip with
    tiny.en, torch's float32 was off by 0.0016 and ours by 0.0020; in all other frames, errors were at most 0.0004.) If
    the oracle's float32 is off by more than half the tolerance, ours may be off by twice that error.
    """
    frames, uncertain = (np.abs(exact - states).max(axis=-1) for states in (ours, rounded))
    return float((frames / np.maximum(1, 2 * uncertain / TOLERANCE)).max())


def _differing(
    clips: Sequence[Clip], wanted: Sequence[list[int]], found: Sequence[list[int]]
) -> dict[str, tuple[list[int], list[int]]]:
    rows = zip(clips, wanted, found, strict=True)
    return {clip.id: (theirs, ours) for clip, theirs, ours in rows if theirs != ours}
