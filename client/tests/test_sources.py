import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from whisperline_client import AudioError, AudioFile
from whisperline_client.sources import CaptureQueue, linear16, pace, rechunk

TONE = (12_000 * np.sin(np.arange(20_000) / 20)).astype(np.int16)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def joined(audio: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in audio])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
async def test_a_wav_file_comes_out_as_it_is(subtype: str, tmp_path: Path) -> None:
    """Audio of 16 bits is streamed bit for bit, whatever format it is stored in."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, TONE / 32_768, 8_000, subtype=subtype)
    file = AudioFile.open(path)
    assert (file.sample_rate, file.channels, file.duration_s) == (8_000, 1, 2.5)
    assert await joined(file.live(speed=None, chunk_ms=70)) == TONE.astype("<i2").tobytes()


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
async def test_compressed_files(suffix: str, tmp_path: Path) -> None:
    """FLAC, Ogg and MP3 files are streamed with their rate and channels."""
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.stack([TONE, TONE], axis=1) / 32_768, 16_000)
    file = AudioFile.open(path)
    assert (file.options().sample_rate, file.options().channels) == (16_000, 2)
    assert len(await joined(file.blocks())) == pytest.approx(4 * len(TONE), rel=0.15)


def test_files_that_cannot_be_streamed(tmp_path: Path) -> None:
    """A missing file, a file without audio and a rate that no gateway accepts are refused with the reason."""
    with pytest.raises(AudioError, match="no such file"):
        AudioFile.open(tmp_path / "none.wav")
    (tmp_path / "garbage.wav").write_bytes(b"garbage" * 100)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        AudioFile.open(tmp_path / "garbage.wav")
    soundfile.write(tmp_path / "fast.wav", TONE, 96_000)
    with pytest.raises(AudioError, match="96000 Hz"):
        AudioFile.open(tmp_path / "fast.wav")


@given(st.binary(max_size=200), st.integers(1, 50))
def test_chunks(data: bytes, size: int) -> None:
    """Cutting audio into chunks keeps every byte, and every chunk but the last has the requested size."""

    async def chunks() -> list[bytes]:
        return [chunk async for chunk in rechunk(once(data), size)]

    cut = asyncio.run(chunks())
    assert b"".join(cut) == data
    assert all(len(chunk) == size for chunk in cut[:-1])


async def test_pace() -> None:
    """Chunks come when their audio has been spoken, at the given speed, with or without jitter."""
    began = time.monotonic()
    jitter = iter([0.02, 0.0, 0.03, 0.0, 0.0])
    audio = pace(once(bytes(3200)), bytes_per_s=32_000, chunk_ms=20, speed=0.5, jitter_s=lambda: next(jitter))
    late_s = [time.monotonic() - began - 0.04 * (number + 1) async for number in _numbered(audio)]
    assert len(late_s) == 5
    assert all(late >= least - 0.002 for late, least in zip(late_s, [0.02, 0.0, 0.03, 0.0, 0.0], strict=True))


async def _numbered(audio: AsyncIterator[bytes]) -> AsyncIterator[int]:
    number = 0
    async for _ in audio:
        yield number
        number += 1


def test_loud_samples_are_clipped() -> None:
    """Samples beyond full scale do not wrap around."""
    assert np.frombuffer(linear16(np.array([[2.0], [-2.0]], np.float32)), "<i2").tolist() == [32_767, -32_768]


async def test_a_microphone_whose_audio_cannot_be_sent() -> None:
    """When blocks overflow the queue, the recording ends after the blocks before them: audio never has a hole."""
    queue = CaptureQueue(asyncio.get_running_loop(), limit_blocks=2)
    for block in (b"1", b"2", b"3"):
        queue.put(block)
    await asyncio.sleep(0)
    assert [await queue.get(), await queue.get()] == [b"1", b"2"]
    with pytest.raises(AudioError, match="lost"):
        await queue.get()
