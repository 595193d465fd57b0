"""From audio to text: windows, batched decoding, guards and fallback, word times."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import guards
from .alignment import FRAME_S, time_words, token_starts
from .decoding import Decoded, Decoder, Task
from .log_mel import HOP, SAMPLE_RATE, log_mel
from .requests import Request, Result
from .sessions import ModelSpec, Sessions
from .slots import Slots
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from .decoding import Window

MARGIN_S = 2.0  # silence that a window holds after the audio, at least
FULL_WINDOW_S = 30
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
FRAMES_PER_SECOND = round(1 / FRAME_S)


@dataclass(frozen=True)
class Attempt:
    """One rung of the ladder that a row climbs while its guards fail."""

    window_s: int
    temperature: float


def attempts(n_samples: int, windows_s: Sequence[int]) -> list[Attempt]:
    """The smallest window that holds the audio and the margin, then 30 s, then the temperatures."""
    needed_s = n_samples / SAMPLE_RATE + MARGIN_S
    window_s = next((w for w in sorted(windows_s) if w >= needed_s), FULL_WINDOW_S)
    greedy = [window_s] if window_s == FULL_WINDOW_S else [window_s, FULL_WINDOW_S]
    ladder = [Attempt(window, 0.0) for window in greedy]
    return ladder + [Attempt(FULL_WINDOW_S, temperature) for temperature in TEMPERATURES]


class _Row:
    """A request on its way: the attempts that are left, and the window of the newest."""

    def __init__(self, request: Request, windows_s: Sequence[int]) -> None:
        self.request = request
        self.ladder = attempts(request.audio.size, windows_s)
        self.seed = zlib.crc32(request.audio.tobytes())
        self.window: Window = {}
        self.window_s = 0
        self.decoded: Decoded | None = None


class Engine:
    """A loaded version. Not thread-safe: one call of `transcribe` at a time."""

    def __init__(self, folder: Path, *, version: str = "1", max_batch: int = 16, threads: int = 0) -> None:
        self.spec = ModelSpec.read(folder)
        self.version = version
        self.sessions = Sessions.open(folder, threads)
        self.vocabulary = Vocabulary.from_json((folder / "tokenizer.json").read_bytes(), self.spec.n_vocab)
        slots = Slots(self.sessions.decoder, self.spec, max_batch, FULL_WINDOW_S * FRAMES_PER_SECOND)
        self._decoder = Decoder(slots, self.vocabulary, max_batch)

    def transcribe(self, requests: Sequence[Request]) -> list[Result]:
        """Serve requests in one batch; a row's result does not depend on the others."""
        rows = [_Row(request, self.spec.windows_s) for request in requests]
        pending = rows
        while pending:
            tasks = [self._next_task(row) for row in pending]
            for row, decoded in zip(pending, self._decoder.decode(tasks), strict=True):
                row.decoded = decoded
            pending = [row for row in pending if row.ladder and self._fails(row)]
        return [self._result(row) for row in rows]

    def warm_up(self) -> None:
        """Decode a second of silence in every window, so that the first request finds memory and threads ready."""
        silence = np.zeros(SAMPLE_RATE, np.float32)
        windows = [self.encode(log_mel(silence, window_s, self.spec.n_mels)) for window_s in self.spec.windows_s]
        self._decoder.decode([Task(window, None, timed=False) for window in windows])

    def encode(self, mel: NDArray[np.float32]) -> Window:
        """The cross-attention's keys and values (H, T, D) of one spectrogram (n_mels, 2T).

        Windows are encoded one at a time: more rows would not use the processor better, and a row's numbers
        cannot then depend on its neighbours.
        """
        names = [output.name for output in self.sessions.encoder.get_outputs() if output.name != "hidden"]
        values = self.sessions.encoder.run(names, {"mel": mel[None]})
        return {name: value[0] for name, value in zip(names, values, strict=True)}

    def _next_task(self, row: _Row) -> Task:
        attempt = row.ladder.pop(0)
        if attempt.window_s != row.window_s:
            row.window = self.encode(log_mel(row.request.audio, attempt.window_s, self.spec.n_mels))
            row.window_s = attempt.window_s
        seed = row.seed + round(attempt.temperature * 10)
        request = row.request
        return Task(row.window, request.language, request.timestamps, attempt.temperature, seed)

    def _fails(self, row: _Row) -> bool:
        assert row.decoded is not None
        return guards.fails(row.decoded, self.vocabulary.decode(row.decoded.tokens))

    def _result(self, row: _Row) -> Result:
        decoded = row.decoded
        assert decoded is not None
        text = self.vocabulary.decode(decoded.tokens).strip()
        silent = guards.is_silence(decoded)
        words = [] if silent or not row.request.words else self._words(row, decoded)
        return Result(
            text="" if silent else text,
            language=decoded.language,
            tokens=() if silent else decoded.tokens,
            words=tuple(words),
            avg_logprob=decoded.avg_logprob,
            no_speech_prob=decoded.no_speech_prob,
            compression_ratio=guards.compression_ratio(text),
            window_s=row.window_s,
            model=self.spec.name,
            version=self.version,
        )

    def _words(self, row: _Row, decoded: Decoded) -> list[dict[str, str | int | float]]:
        is_text = [token < self.vocabulary.end for token in decoded.tokens]
        tokens = [t for t, keep in zip(decoded.tokens, is_text, strict=True) if keep]
        if not tokens:
            return []
        probabilities = np.exp([p for p, keep in zip(decoded.logprobs, is_text, strict=True) if keep])
        starts_s = self._token_starts(row, tokens, decoded.language)
        words = self.vocabulary.split_words(tokens, decoded.language)
        timed = time_words(words, starts_s, probabilities.tolist())
        return [
            {
                "word": w.word.strip(),
                "start_ms": round(w.start_s * 1000),
                "end_ms": round(w.end_s * 1000),
                "confidence": w.confidence,
            }
            for w in timed
        ]

    def _token_starts(self, row: _Row, tokens: list[int], language: str) -> NDArray[np.float64]:
        vocabulary = self.vocabulary
        prompt = [vocabulary.start]
        if vocabulary.is_multilingual:
            prompt += [vocabulary.languages[language], vocabulary.transcribe]
        # the attention at a token tells where the next begins: so the prompt's last stands for the first
        fed = np.array([[*prompt, vocabulary.no_timestamps, *tokens, vocabulary.end]], np.int64)
        wanted = {value.name for value in self.sessions.aligner.get_inputs()} - {"tokens"}
        feeds = {name: row.window[name][None] for name in wanted}
        (weights,) = self.sessions.aligner.run(["weights"], {"tokens": fed, **feeds})
        n_frames = max(1, row.request.audio.size // (2 * HOP))
        return token_starts(weights[:, :-1, :n_frames], len(prompt))
