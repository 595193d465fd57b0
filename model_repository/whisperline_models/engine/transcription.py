"""From audio to text: windows, batched decoding, guards and fallback, word times."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .alignment import FRAME_S, time_words, token_starts
from .decoding import Decoded, Decoder, Task
from .guards import MAX_IMPROBABLE, Verdict, compression_ratio, is_believable_repetition, judge
from .log_mel import HOP, SAMPLE_RATE, log_mel
from .requests import Request, Result
from .sessions import ModelSpec, Sessions
from .slots import Slots
from .vocabulary import UNSPACED, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from .decoding import Window

MARGIN_S = 2.0  # silence that a window holds after the audio, at least
FULL_WINDOW_S = 30
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
FRAMES_PER_SECOND = round(1 / FRAME_S)
SAMPLES_PER_FRAME = 2 * HOP  # in a frame of the encoder, and a step of the timestamps
LEAST_STEP_S = 1.0  # what must be done before the rest is decoded for itself
LEAST_REST_S = 0.5


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
    """Audio on its way: the attempts that are left, the window of the newest, and what came of each.

    It is a request's audio from `start_samples` on.
    """

    def __init__(self, request: Request, windows_s: Sequence[int], start_samples: int = 0) -> None:
        self.request, self.start_samples = request, start_samples
        self.audio = request.audio[start_samples:]
        self.ladder = attempts(self.audio.size, windows_s)
        self.seed = zlib.crc32(self.audio.tobytes())
        self.window: Window = {}
        self.window_s = 0
        self.improbable = 0
        self.repeated: Decoded | None = None  # the first over the full window that may be what was said
        self.decoded = Decoded((), (), 0.0, 1.0, "en", ended=True)
        self.settled = False
        self.silent = False

    def take(self, decoded: Decoded, verdict: Verdict) -> None:
        """Settle on this decoding, on an earlier one or on silence; else another attempt follows."""
        self.decoded = decoded
        if self.window_s == FULL_WINDOW_S:
            self.improbable += verdict is Verdict.IMPROBABLE
            if verdict is Verdict.REPEATED and self.repeated is None and is_believable_repetition(decoded):
                self.repeated = decoded
        gives_up = not self.ladder or self.improbable >= MAX_IMPROBABLE
        if gives_up and verdict is not Verdict.GOOD:
            self.decoded = self.repeated or decoded
            self.silent = self.repeated is None
        self.silent |= verdict is Verdict.SILENT
        self.settled = gives_up or verdict in {Verdict.GOOD, Verdict.SILENT}


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
        parts = [[_Row(request, self.spec.windows_s)] for request in requests]
        while pending := [rows for rows in parts if not rows[-1].settled]:
            tasks = [self._next_task(rows[-1]) for rows in pending]
            for rows, decoded in zip(pending, self.decode(tasks), strict=True):
                rows[-1].take(decoded, self._judge(rows[-1], decoded))
                rows.extend(self._rest(rows[-1]))
        return [self._result(rows) for rows in parts]

    def warm_up(self) -> None:
        """Decode a second of silence in every window, so that the first request finds memory and threads ready."""
        silence = np.zeros(SAMPLE_RATE, np.float32)
        windows = [self.window(silence, window_s) for window_s in self.spec.windows_s]
        self.decode([Task(window, None, timed=False) for window in windows])

    def window(self, audio: NDArray[np.float32], window_s: int) -> Window:
        """Encode audio (mono 16 kHz, -1..1) in a window of this length."""
        return self.encode(log_mel(audio, window_s, self.spec.n_mels))

    def encode(self, mel: NDArray[np.float32]) -> Window:
        """The cross-attention's keys and values (H, T, D) of one spectrogram (n_mels, 2T).

        Windows are encoded one at a time: more rows would not use the processor better, and a row's numbers
        cannot then depend on its neighbours.
        """
        names = [output.name for output in self.sessions.encoder.get_outputs() if output.name != "hidden"]
        values = self.sessions.encoder.run(names, {"mel": mel[None]})
        return {name: value[0] for name, value in zip(names, values, strict=True)}

    def decode(self, tasks: Sequence[Task]) -> list[Decoded]:
        """Decode windows in one batch, without guards."""
        return self._decoder.decode(tasks)

    def force(self, window: Window, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits (N, V) after each of these tokens, fed one by one, before any rule."""
        return self._decoder.force(window, tokens)

    def token_starts(self, window: Window, tokens: Sequence[int], language: str, n_samples: int) -> NDArray[np.float64]:
        """Where each of these text tokens begins, and last where the text ends: seconds of the window."""
        vocabulary = self.vocabulary
        prompt = [vocabulary.start]
        if vocabulary.is_multilingual:
            prompt += [vocabulary.languages[language], vocabulary.transcribe]
        fed = np.array([[*prompt, vocabulary.no_timestamps, *tokens, vocabulary.end]], np.int64)
        wanted = {value.name for value in self.sessions.aligner.get_inputs()} - {"tokens"}
        feeds = {name: window[name][None] for name in wanted}
        (weights,) = self.sessions.aligner.run(["weights"], {"tokens": fed, **feeds})
        n_frames = max(1, n_samples // SAMPLES_PER_FRAME)
        return token_starts(weights[:, :, :n_frames], len(prompt))

    def _next_task(self, row: _Row) -> Task:
        attempt = row.ladder.pop(0)
        if attempt.window_s != row.window_s:
            row.window = self.window(row.audio, attempt.window_s)
            row.window_s = attempt.window_s
        seed = row.seed + round(attempt.temperature * 10)
        request = row.request
        return Task(row.window, request.language, request.timestamps, attempt.temperature, seed)

    def _judge(self, row: _Row, decoded: Decoded) -> Verdict:
        tokens = [token for token in decoded.tokens if token < self.vocabulary.end]
        return judge(decoded, self.vocabulary.decode(tokens), tokens, row.audio.size / SAMPLE_RATE)

    def _rest(self, row: _Row) -> list[_Row]:
        """What is left to decode where the text breaks off between two timestamps: the reference seeks there."""
        stamps = [token - self.vocabulary.timestamp_begin for token in row.decoded.tokens[-2:]]
        if not row.settled or row.silent or len(stamps) < 2 or min(stamps) < 0:
            return []
        done, left = stamps[1] * SAMPLES_PER_FRAME, row.audio.size - stamps[1] * SAMPLES_PER_FRAME
        goes_on = done >= LEAST_STEP_S * SAMPLE_RATE and left >= LEAST_REST_S * SAMPLE_RATE
        return [_Row(row.request, self.spec.windows_s, row.start_samples + done)] if goes_on else []

    def _result(self, rows: Sequence[_Row]) -> Result:
        heard = [row for row in rows if not row.silent]
        text = "".join(self.vocabulary.decode(row.decoded.tokens) for row in heard).strip()
        first, n_tokens = rows[0], [len(row.decoded.tokens) + 1 for row in heard or rows]
        logprobs = [row.decoded.avg_logprob for row in heard or rows]
        return Result(
            text=text,
            language=first.decoded.language,
            tokens=tuple(token for row in heard for token in self._shifted(row)),
            words=tuple(word for row in heard if row.request.words for word in self._words(row)),
            avg_logprob=float(np.average(logprobs, weights=n_tokens)),
            no_speech_prob=first.decoded.no_speech_prob,
            compression_ratio=compression_ratio(text),
            window_s=first.window_s,
            model=self.spec.name,
            version=self.version,
        )

    def _shifted(self, row: _Row) -> list[int]:
        """The tokens of a part, timestamps counted from the start of the request's audio."""
        begin, last = self.vocabulary.timestamp_begin, self.vocabulary.n_vocab - 1
        shift = row.start_samples // SAMPLES_PER_FRAME
        return [min(token + shift, last) if token >= begin else token for token in row.decoded.tokens]

    def _words(self, row: _Row) -> list[dict[str, str | int | float]]:
        pairs = zip(row.decoded.tokens, row.decoded.logprobs, strict=True)
        spoken = [(token, np.exp(logprob)) for token, logprob in pairs if token < self.vocabulary.end]
        if not spoken:
            return []
        tokens, probabilities = zip(*spoken, strict=True)
        starts_s = self.token_starts(row.window, tokens, row.decoded.language, row.audio.size)
        words = self.vocabulary.split_words(tokens, row.decoded.language)
        start_s, spaced = row.start_samples / SAMPLE_RATE, row.decoded.language not in UNSPACED
        return [
            {
                "word": word.word.strip(),
                "start_ms": round((start_s + word.start_s) * 1000),
                "end_ms": round((start_s + word.end_s) * 1000),
                "confidence": word.confidence,
            }
            for word in time_words(words, starts_s, probabilities, spaced=spaced)
        ]
