"""Triton on real parts: a model's dead process is noticed, and killed servers leave no shared memory."""

import asyncio
import os
import subprocess
import time
import uuid
from pathlib import Path

import psutil
import pytest
from whisperline_local import LocalSettings, Stack
from whisperline_local.runner import State
from whisperline_local.settings import CHECKOUT
from whisperline_local.triton import MODELS, SHARED_MEMORY, STALE_S, remove_stale_shared_memory, stubs_live

PORT_OFFSET = 3_000
LIMIT_S = 60.0

CONFIGURATION = """
name: "{model}"
backend: "python"
max_batch_size: 1
input [ {{ name: "audio" data_type: TYPE_INT16 dims: [ -1 ] }} ]
output [ {{ name: "result" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
"""
MODEL = """
import numpy  # the stub has the packages of this environment

class TritonPythonModel:
    def execute(self, requests):
        return []
"""


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    """A stack that serves the smallest models there are."""
    for model in MODELS:
        version = tmp_path / "repository" / model / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(MODEL)
        (version.parent / "config.pbtxt").write_text(CONFIGURATION.format(model=model))
    return LocalSettings(
        state_dir=tmp_path / "state",
        cache_dir=CHECKOUT / ".state/cache",
        port_offset=PORT_OFFSET,
        model_repository=tmp_path / "repository",
    )


@pytest.mark.integration
async def test_a_server_whose_model_died_is_restarted(settings: LocalSettings) -> None:
    """A server whose model's process died is restarted, although it still calls the model ready."""
    restarting = asyncio.Event()

    def report(_name: str, state: State, _detail: str) -> None:
        if state is State.RESTARTING:
            restarting.set()

    async with Stack(settings, ["triton"], report) as stack:
        before = stack.pid("triton")
        assert before is not None
        first, _ = psutil.Process(before).children()
        first.kill()
        await asyncio.wait_for(restarting.wait(), LIMIT_S)
        await stack.wait_healthy("triton", LIMIT_S)
        after = stack.pid("triton")
        assert after is not None
        assert after != before
        assert stubs_live(after)


def _region(age_s: float) -> Path:
    region = SHARED_MEMORY / f"triton_python_backend_shm_region_{uuid.uuid4()}"
    region.touch()
    os.utime(region, times=(time.time() - age_s,) * 2)
    return region


def test_shared_memory_of_killed_servers_is_removed() -> None:
    """Old regions that no process names are removed; named ones and new ones stay."""
    old, new, used = _region(2 * STALE_S), _region(0), _region(2 * STALE_S)
    user = subprocess.Popen(["sh", "-c", "read line", used.name], stdin=subprocess.PIPE)
    try:
        remove_stale_shared_memory()
        assert (old.exists(), new.exists(), used.exists()) == (False, True, True)
    finally:
        user.kill()
        user.communicate()
        for region in (old, new, used):
            region.unlink(missing_ok=True)
