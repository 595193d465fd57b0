"""Where audio comes from: files of any format that libsndfile reads, paced like live speech."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from whisperline_client.errors import AudioError
from whisperline_client.options import BYTES_PER_SAMPLE, ListenOptions

_BLOCK_S = 1.0  # read at a time: a file is never whole in memory
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE, MAX_CHANNELS = 8_000, 48_000, 8


@dataclass(frozen=True)
class AudioFile:
    """An audio file that can be streamed as linear16 at its own rate."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    duration_s: float

    @classmethod
    def open(cls, path: Path | str) -> "AudioFile":
        """Read the header. Raises `AudioError`, saying what is wrong with the file."""
        with _readable(Path(path)) as file:
            opened = cls(Path(path), file.samplerate, file.channels, file.frames / file.samplerate)
        if not MIN_SAMPLE_RATE <= opened.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(f"{path} has {opened.sample_rate} Hz; 8000 to 48000 Hz can be streamed: convert it first")
        if opened.channels > MAX_CHANNELS:
            raise AudioError(f"{path} has {opened.channels} channels; at most {MAX_CHANNELS} can be streamed")
        return opened

    def options(self, **choices: Any) -> ListenOptions:
        """Return the options of a session with this file's audio; `choices` are fields of `ListenOptions`."""
        return ListenOptions(sample_rate=self.sample_rate, channels=self.channels, **choices)

    def live(
        self, *, chunk_ms: float = 100, speed: float | None = 1.0, jitter_s: Callable[[], float] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the audio as if it were spoken now: see `pace`."""
        bytes_per_s = BYTES_PER_SAMPLE * self.channels * self.sample_rate
        return pace(self.blocks(), bytes_per_s=bytes_per_s, chunk_ms=chunk_ms, speed=speed, jitter_s=jitter_s)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield linear16 audio in blocks of a second, read in a thread. Raises `AudioError`."""
        with _readable(self.path) as file:
            while len(samples := await asyncio.to_thread(_read, file, int(_BLOCK_S * self.sample_rate))):
                yield linear16(samples)


@contextmanager
def _readable(path: Path) -> Iterator[soundfile.SoundFile]:
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        reason = "there is no such file" if not path.exists() else str(error)
        raise AudioError(f"{path} cannot be read as audio: {reason}") from error


def _read(file: soundfile.SoundFile, frames: int) -> npt.NDArray[np.float32]:
    samples: npt.NDArray[np.float32] = file.read(frames, dtype="float32", always_2d=True)
    return samples


def linear16(samples: npt.NDArray[np.float32]) -> bytes:
    """Return samples of -1..1, float32 (frames, channels), as little-endian 16-bit; those beyond are clipped."""
    return (samples * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes()


async def pace(
    audio: AsyncIterable[bytes],
    *,
    bytes_per_s: int,
    chunk_ms: float = 100,
    speed: float | None = 1.0,
    jitter_s: Callable[[], float] | None = None,
) -> AsyncIterator[bytes]:
    """Cut audio into chunks of `chunk_ms` and yield each when its last sample has been spoken.

    `speed` 2 is twice real time, None is no waiting. `jitter_s` returns how late a chunk comes (the chunks after
    it are not later for that, but never overtake it). Cuts need not fall on whole samples.
    """
    chunk_bytes = max(BYTES_PER_SAMPLE, round(bytes_per_s * chunk_ms / 1000))
    began_s, sent_bytes = time.monotonic(), 0
    async for chunk in rechunk(audio, chunk_bytes):
        sent_bytes += len(chunk)
        if speed is not None:
            due_s = began_s + sent_bytes / bytes_per_s / speed + (jitter_s() if jitter_s else 0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield chunk


async def rechunk(audio: AsyncIterable[bytes], chunk_bytes: int) -> AsyncIterator[bytes]:
    """Yield the same bytes in chunks of `chunk_bytes`; the last may be shorter."""
    pending = bytearray()
    async for block in audio:
        pending += block
        while len(pending) >= chunk_bytes:
            yield bytes(pending[:chunk_bytes])
            del pending[:chunk_bytes]
    if pending:
        yield bytes(pending)
