"""Silence, music and noise do not become text."""

import asyncio
import json

import numpy as np
import pytest
import soundfile
from streams import RATE, SPEECH_DIR, Samples, Streamed, stream_speech
from whisperline_client import ListenOptions
from whisperline_local import Stack

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

LIMIT_S = 30  # of each recording


async def test_a_minute_of_silence_gives_no_segment(stack: Stack) -> None:
    """A minute of digital silence and faint noise gives no segment."""
    noise = np.random.default_rng(1).normal(0, 20, 60 * RATE).astype(np.int16)
    for samples in (np.zeros(60 * RATE, np.int16), noise):
        got = await stream_speech(stack.gateway_urls, samples, speed=None)
        assert got.finals == []


async def test_music_and_noise_give_no_invented_text(stack: Stack) -> None:
    """Recordings without speech may open segments, but no word comes out of them."""
    manifest = SPEECH_DIR / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip(f"{manifest} is not there: set WHISPERLINE_SPEECH_DIR to a folder with recordings without speech")
    clips = [json.loads(line) for line in manifest.read_text().splitlines()]
    unspoken = [clip["path"] for clip in clips if not clip["text"]]

    async def streamed(path: str) -> Streamed:
        samples: Samples
        samples, rate = soundfile.read(SPEECH_DIR / path, dtype="int16", always_2d=True)
        options = ListenOptions(sample_rate=rate, channels=samples.shape[1], language="en", priority="file")
        return await stream_speech(stack.gateway_urls, samples[: LIMIT_S * rate], speed=None, options=options)

    got = await asyncio.gather(*(streamed(path) for path in unspoken))
    said = {path: each.text for path, each in zip(unspoken, got, strict=True) if each.text}
    assert said == {}
    assert len(unspoken) >= 10
