"""Deepgram's own SDK works with a gateway when only the address is changed."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from deepgram import AsyncDeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from streams import RATE, blocks
from whisperline_client import pace
from whisperline_local import Stack

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]


async def test_speech_comes_back_to_deepgrams_sdk(stack: Stack, demo_clip: Path) -> None:
    """Partials and finals come as its own types, and after `CloseStream` the summary and the end of the socket."""
    http = stack.gateway_urls[0]
    socket = http.replace("http://", "ws://")
    here = DeepgramClientEnvironment(base=http, production=socket, agent=socket, agent_rest=http)
    samples, _ = soundfile.read(demo_clip, dtype="int16")
    came: list[Any] = []
    errors: list[Any] = []
    client = AsyncDeepgramClient(api_key="none", environment=here)
    async with client.listen.v1.connect(
        model="nova-3",
        encoding="linear16",
        sample_rate=RATE,
        interim_results=True,
        language="en",
        keyterm=["country", "fail"],
    ) as connection:
        connection.on(EventType.MESSAGE, came.append)
        connection.on(EventType.ERROR, errors.append)
        listening = asyncio.create_task(connection.start_listening())
        spoken = np.concatenate([samples, np.zeros(RATE, np.int16)])
        async for block in pace(blocks(spoken), bytes_per_s=2 * RATE):
            await connection.send_media(block)
        await connection.send_close_stream()
        async with asyncio.timeout(60):
            await listening
    assert errors == []
    results = [message for message in came if message.type == "Results"]
    said = " ".join(result.channel.alternatives[0].transcript for result in results if result.is_final)
    partials = [result.channel.alternatives[0] for result in results if not result.is_final]
    assert any(partial.words and partial.confidence > 0 for partial in partials)
    assert any(result.is_final and result.speech_final for result in results)
    assert "your country" in said.lower() or "fail again" in said.lower()  # of the two clips that the demo has
    assert came[-1].type == "Metadata"
