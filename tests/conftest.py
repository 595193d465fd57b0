"""Fixtures of the tests across deployables: one real stack, and real speech for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from stacks import local_settings
from streams import CLIPS, GAP_S, RATE, Speech, sentences
from whisperline_local import Stack
from whisperline_local.assets import demo_speech


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The whole embedded stack with two gateways and two transcribers."""
    settings = local_settings(tmp_path_factory.mktemp("stack"), transcribers=2)
    async with Stack(settings) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The WAV file that the demo plays."""
    return await demo_speech(local_settings(tmp_path_factory.mktemp("demo")))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def speech(demo_clip: Path) -> list[Speech]:
    """Eight pieces of 15 to 30 s: read sentences if a folder of speech exists, else parts of the demo's clip."""
    spoken = sentences() or [soundfile.read(demo_clip, dtype="int16")[0]]
    gap = np.zeros(int(GAP_S * RATE), np.int16)
    pieces = []
    for number in range(CLIPS):
        chosen = [spoken[(3 * number + turn) % len(spoken)] for turn in range(3)]
        joined = np.concatenate([part for sentence in chosen for part in (sentence, gap)])
        pieces.append(Speech(f"speech-{number}", joined))
    return pieces
