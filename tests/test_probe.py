"""The probe of Triton's container distinguishes a server whose model has died from one that serves."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from stacks import local_settings
from whisperline_local import Stack
from whisperline_models.probe import MODELS, problem

pytestmark = pytest.mark.integration

CONFIGURATION = """
name: "{model}"
backend: "python"
max_batch_size: 1
input [ {{ name: "audio" data_type: TYPE_INT16 dims: [ -1 ] }} ]
output [ {{ name: "result" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
"""
MODEL = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""


class Server:
    """A running Triton, and a way to probe it."""

    def __init__(self, stack: Stack, processes: Path) -> None:
        self.port = stack.settings.ports.triton_http
        pid = stack.pid("triton")
        assert pid is not None
        self.children = psutil.Process(pid).children()
        for child in self.children:  # other servers of this machine are not this container's
            (processes / str(child.pid)).symlink_to(f"/proc/{child.pid}")
        self.processes = processes

    def problem(self, *, live_only: bool) -> str | None:
        return problem(live_only=live_only, port=self.port, processes=self.processes)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server of the smallest models there are; its supervisor holds still while a test looks."""
    for model in MODELS:
        version = tmp_path / "repository" / model / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(MODEL)
        (version.parent / "config.pbtxt").write_text(CONFIGURATION.format(model=model))
    settings = local_settings(tmp_path / "state", name="probe", model_repository=tmp_path / "repository")
    (tmp_path / "processes").mkdir()
    async with Stack(settings, ["triton"]) as stack:
        yield Server(stack, tmp_path / "processes")


def test_a_serving_server_is_ready_and_live(server: Server) -> None:
    """A server with its models and their processes passes both probes."""
    assert server.problem(live_only=False) is None
    assert server.problem(live_only=True) is None


def test_a_dead_model_is_neither_ready_nor_live(server: Server) -> None:
    """A model whose process was killed fails both probes, though the server answers."""
    server.children[0].kill()
    deadline_s = time.monotonic() + 10
    while server.children[0].is_running() and server.children[0].status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, "a killed process lives on"
        time.sleep(0.01)  # nobody but the server can wait for it
    found = server.problem(live_only=True)
    assert found is not None
    assert found.startswith("the process has ended of: whisper")
    assert server.problem(live_only=False) is not None


def test_a_server_that_does_not_answer_fails() -> None:
    """If nothing listens, the probe raises, and its command ends with one line."""
    with pytest.raises(ConnectionRefusedError):
        problem(live_only=True, port=1)
