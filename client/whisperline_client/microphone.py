"""The microphone as a source of audio. Needs the extra `mic` (sounddevice and the PortAudio library)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from whisperline_client.errors import AudioError

SAMPLE_RATE = 16_000  # Hz
_QUEUED_BLOCKS = 600  # a minute of 100 ms blocks: what waits while the network is away


def require_sounddevice() -> Any:
    """Return the module `sounddevice`. Raises `AudioError`, saying what to install."""
    try:
        import sounddevice  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        install = ".venv/bin/pip install -e 'client[mic]'"
        raise AudioError(f"the microphone needs an extra: run, in the checkout, {install}") from error
    except OSError as error:
        raise AudioError(f"{error}: install PortAudio (Debian: apt install libportaudio2)") from error
    return sounddevice


async def microphone(device: str | int | None = None, *, chunk_ms: int = 100) -> AsyncIterator[bytes]:
    """Yield linear16 mono audio of 16 kHz from an input device until cancelled. Raises `AudioError`."""
    sounddevice = require_sounddevice()
    captured = Captured(asyncio.get_running_loop())
    try:
        recording = sounddevice.RawInputStream(
            SAMPLE_RATE, SAMPLE_RATE * chunk_ms // 1000, device, channels=1, dtype="int16", callback=captured.put
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"no microphone can be opened: {error}") from error
    with recording:
        while True:
            yield await captured.get()


class Captured:
    """Blocks on their way from PortAudio's thread to the event loop; when too many wait, the recording fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_blocks: int = _QUEUED_BLOCKS) -> None:
        self._loop = loop
        self._blocks: asyncio.Queue[bytes] = asyncio.Queue(limit_blocks)
        self._overflowed = False

    def put(self, data: Any, *_: object) -> None:
        """Take a block. PortAudio calls this from its own thread."""
        self._loop.call_soon_threadsafe(self._put, bytes(data))

    def _put(self, data: bytes) -> None:
        if self._blocks.full():
            self._overflowed = True
        else:
            self._blocks.put_nowait(data)

    async def get(self) -> bytes:
        """Return the next block. Raises `AudioError` if blocks were lost before it."""
        if self._overflowed and self._blocks.empty():
            raise AudioError("the microphone's audio could not be sent for a minute, and some of it is lost")
        return await self._blocks.get()
