"""The process starts only with valid settings, and logs one line that says why it cannot go on."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from whisperline_runtime.errors import SettingsError, StartupError
from whisperline_runtime.process import Stop
from whisperline_transcriber.__main__ import main
from whisperline_transcriber.settings import Settings


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing model file ends the process at once with a line that names the setting."""
    monkeypatch.setenv("WHISPERLINE_TRANSCRIBER_VAD_MODEL", str(Path(__file__).with_name("none.onnx")))
    with pytest.raises(SettingsError, match=r"^WHISPERLINE_TRANSCRIBER_VAD_MODEL: "):
        Settings.read()


async def test_a_kafka_that_does_not_answer_ends_the_start(settings: Callable[..., Settings]) -> None:
    """The process ends if Kafka does not answer within `start_timeout_s`, and is live but not ready until then."""
    chosen = settings(start_timeout_s=1.0, metrics_port=0).model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    with pytest.raises(StartupError, match="did not answer within 1 s"):
        await main(chosen, Stop())


async def test_a_process_that_waits_for_kafka_ends_when_told(settings: Callable[..., Settings]) -> None:
    """A process that still waits for Kafka ends at once when stopped, because it has nothing to hand over."""
    chosen = settings(metrics_port=18_129).model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    stop = Stop()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks, httpx.AsyncClient() as client:
        running = tasks.create_task(main(chosen, stop))
        base = f"http://127.0.0.1:{chosen.metrics_port}"
        while not running.done():
            try:
                answers = [(await client.get(f"{base}/health/{probe}")) for probe in ("live", "ready")]
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
                continue
            assert [answer.status_code for answer in answers] == [200, 503]
            assert "Kafka has not been reached yet" in answers[1].text
            break
        stop.set()
        await running
