"""Sources of audio: the microphone, and files of any format that libsndfile reads, paced like live speech."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Unpack

import numpy as np
import numpy.typing as npt
import soundfile

from whisperline_client.errors import AudioError
from whisperline_client.options import BYTES_PER_SAMPLE, ListenChoices, ListenOptions

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE, MAX_CHANNELS = 8_000, 48_000, 8
BLOCK_S = 1.0  # files are read in blocks of this length, and are never whole in memory
MICROPHONE_SAMPLE_RATE = 16_000  # Hz
MICROPHONE_CHUNK_MS = 100
MICROPHONE_QUEUE_BLOCKS = 600  # one minute, for times when the network is away


@dataclass(frozen=True)
class AudioFile:
    """An audio file that can be streamed as linear16 at its own rate."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    duration_s: float

    @classmethod
    def open(cls, path: Path | str) -> "AudioFile":
        """Read the file's header. Raises `AudioError`, saying what is wrong with the file."""
        with _readable(Path(path)) as file:
            opened = cls(Path(path), file.samplerate, file.channels, file.frames / file.samplerate)
        if not MIN_SAMPLE_RATE <= opened.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(f"{path} has {opened.sample_rate} Hz; 8000 to 48000 Hz can be streamed: convert it first")
        if opened.channels > MAX_CHANNELS:
            raise AudioError(f"{path} has {opened.channels} channels; at most {MAX_CHANNELS} can be streamed")
        return opened

    def options(self, **choices: Unpack[ListenChoices]) -> ListenOptions:
        """Return the options of a session with this file's audio and the given choices."""
        return ListenOptions(sample_rate=self.sample_rate, channels=self.channels, **choices)

    def live(
        self, *, chunk_ms: float = 100, speed: float | None = 1.0, jitter_s: Callable[[], float] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the audio as if it were spoken now. See `pace`."""
        bytes_per_s = BYTES_PER_SAMPLE * self.channels * self.sample_rate
        return pace(self.blocks(), bytes_per_s=bytes_per_s, chunk_ms=chunk_ms, speed=speed, jitter_s=jitter_s)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield linear16 audio in blocks of a second, read in a thread. Raises `AudioError`."""
        frames = int(BLOCK_S * self.sample_rate)
        with _readable(self.path) as file:
            while len(samples := await asyncio.to_thread(file.read, frames, dtype="float32", always_2d=True)):
                yield linear16(samples)


@contextmanager
def _readable(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file, and turn every error while it is in use into an `AudioError`."""
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        reason = "there is no such file" if not path.exists() else str(error)
        raise AudioError(f"{path} cannot be read as audio: {reason}") from error


def linear16(samples: npt.NDArray[np.float32]) -> bytes:
    """Return float32 samples of -1..1, of shape (frames, channels), as little-endian 16-bit, clipped."""
    return (samples * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes()


async def pace(
    audio: AsyncIterable[bytes],
    *,
    bytes_per_s: int,
    chunk_ms: float = 100,
    speed: float | None = 1.0,
    jitter_s: Callable[[], float] | None = None,
) -> AsyncIterator[bytes]:
    """Cut audio into chunks of `chunk_ms`, and yield each one when its last sample has been spoken.

    A `speed` of 2 is twice real time; None does not wait at all. `jitter_s` returns the seconds by which a chunk is
    late. Lateness does not add up, and chunks never overtake each other. Chunks may end within a sample.
    """
    chunk_bytes = max(BYTES_PER_SAMPLE, round(bytes_per_s * chunk_ms / 1000))
    began_s, sent_bytes = time.monotonic(), 0
    async for chunk in rechunk(audio, chunk_bytes):
        sent_bytes += len(chunk)
        if speed is not None:
            # Counted from the beginning, not from the previous chunk: otherwise small delays would add up.
            due_s = began_s + sent_bytes / bytes_per_s / speed + (jitter_s() if jitter_s else 0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield chunk


async def rechunk(audio: AsyncIterable[bytes], chunk_bytes: int) -> AsyncIterator[bytes]:
    """Yield the same bytes in chunks of `chunk_bytes`; the last chunk may be shorter."""
    pending = bytearray()
    async for block in audio:
        pending += block
        while len(pending) >= chunk_bytes:
            yield bytes(pending[:chunk_bytes])
            del pending[:chunk_bytes]
    if pending:
        yield bytes(pending)


def require_sounddevice() -> ModuleType:
    """Return the module `sounddevice` of the extra `mic`. Raises `AudioError`, saying what to install."""
    try:
        return import_module("sounddevice")
    except ImportError as error:
        install = ".venv/bin/pip install -e 'client[mic]'"
        raise AudioError(f"the microphone needs an extra: run, in the checkout, {install}") from error
    except OSError as error:
        raise AudioError(f"{error}: install PortAudio (Debian: apt install libportaudio2)") from error


async def microphone(device: str | int | None = None) -> AsyncIterator[bytes]:
    """Yield linear16 mono audio of 16 kHz from an input device until cancelled. Raises `AudioError`."""
    sounddevice = require_sounddevice()
    queue = CaptureQueue(asyncio.get_running_loop())
    block_frames = MICROPHONE_SAMPLE_RATE * MICROPHONE_CHUNK_MS // 1000
    try:
        recording = sounddevice.RawInputStream(
            MICROPHONE_SAMPLE_RATE, block_frames, device, channels=1, dtype="int16", callback=queue.put
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"no microphone can be opened: {error}") from error
    with recording:
        while True:
            yield await queue.get()


class CaptureQueue:
    """Carries blocks of audio from PortAudio's thread to the event loop.

    Audio must not have a hole, so a queue that overflows ends the recording: after the blocks that came before the
    overflow, `get` raises `AudioError`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_blocks: int = MICROPHONE_QUEUE_BLOCKS) -> None:
        self._loop = loop
        self._blocks: asyncio.Queue[bytes] = asyncio.Queue(limit_blocks)
        self._overflowed = False

    def put(self, data: bytes | memoryview, *_: object) -> None:
        """Append a block. PortAudio calls this in its own thread, and reuses the memory of `data`."""

        def append(block: bytes) -> None:
            if self._blocks.full():  # the network has been away for longer than the queue lasts
                self._overflowed = True
            else:
                self._blocks.put_nowait(block)

        self._loop.call_soon_threadsafe(append, bytes(data))

    async def get(self) -> bytes:
        """Return the next block. Raises `AudioError` if blocks before it were lost."""
        if self._overflowed and self._blocks.empty():
            raise AudioError("the microphone's audio could not be sent for a minute, and some of it is lost")
        return await self._blocks.get()
