"""How the process ends, and what its probes tell."""

import asyncio
from pathlib import Path

import httpx
import pytest
from whisperline_contracts.settings import WrongSettings
from whisperline_transcriber import __main__ as main
from whisperline_transcriber.health import Heart, serve_health
from whisperline_transcriber.settings import Settings


async def test_a_process_that_waits_for_kafka_ends_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline it is cancelled, and again where it waits for Kafka even to close."""
    monkeypatch.setattr(main, "CANCEL_S", 0.01)
    closed, stop = [], asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                closed.append(True)

    running = asyncio.create_task(run())
    stop.set()
    await main._finish(running, stop, 0.01)
    assert closed == [True]
    assert running.cancelled()


async def test_what_ends_the_process_is_raised() -> None:
    """Whether it was told to stop or not."""

    async def run() -> None:
        raise RuntimeError("no good")

    with pytest.raises(RuntimeError, match="no good"):
        await main._finish(asyncio.create_task(run()), asyncio.Event(), 1)


async def test_a_process_whose_event_loop_is_stuck_says_so() -> None:
    """/live and /ready fail then; /ready also while there are no partitions."""
    heart, ready = Heart(), False
    async with serve_health("127.0.0.1", 0, lambda: ready, heart) as port, httpx.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        assert (await client.get(f"{base}/live")).status_code == 200
        assert (await client.get(f"{base}/ready")).status_code == 503
        ready = True
        assert (await client.get(f"{base}/ready")).status_code == 200
        heart.beat_s -= 60
        stuck = [httpx.get(f"{base}{path}") for path in ("/live", "/ready")]  # noqa: ASYNC210 - the loop is to be stuck
    assert [answer.status_code for answer in stuck] == [503, 503]


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends at once with a line that names the setting."""
    monkeypatch.setenv("WHISPERLINE_TRANSCRIBER_VAD_MODEL", str(Path(__file__).with_name("none.onnx")))
    with pytest.raises(WrongSettings, match=r"^WHISPERLINE_TRANSCRIBER_VAD_MODEL: "):
        Settings.read()
