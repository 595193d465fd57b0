"""Run the unchanged compose.yaml on stand-ins: speech becomes rows, even when containers die or start again."""

import asyncio
import time
from collections.abc import Callable

import pytest
from jiwer import wer
from streams import Row, Speech, Streamed, eventually, stored_rows, stream_speech
from whisperline_persistence import Store

from containers.conftest import Containers

pytestmark = [pytest.mark.containers, pytest.mark.asyncio(loop_scope="session")]

OURS = {"gateway": 25, "transcriber": 20, "persistence": 15, "triton-cpu": 30}  # stop_grace_period, seconds
EVERY = (*OURS, "kafka", "postgres")
FAULT_AFTER_S = 7.0
WORDS_THAT_MAY_DIFFER = 0.2
TRY_TO_WRITE = """
import pathlib
for folder in ("/", "/app", "/app/lib", "/etc", "/usr/lib", "/var"):
    try:
        pathlib.Path(folder, "written").write_text("")
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written to")
"""


async def streamed(containers: Containers, piece: Speech, fault: Callable[[], None] | None = None) -> Streamed:
    """Stream a recording in real time, with a fault in the middle."""

    async def disturb() -> None:
        await asyncio.sleep(FAULT_AFTER_S)  # speech takes its time: this is a position in it
        if fault is not None:
            await asyncio.to_thread(fault)

    found, _ = await asyncio.gather(stream_speech([containers.url], piece.samples), disturb())
    return found


async def rows_of(containers: Containers, session_id: str) -> list[Row]:
    async with Store.open(containers.database_url) as store:
        return await stored_rows(store, session_id)


def text_of(rows: list[Row]) -> str:
    return " ".join(row[3] for row in rows)


async def check_whole(containers: Containers, found: Streamed) -> list[Row]:
    """Compare what the client received with the rows: every segment once, in order, with the same text."""
    rows = await rows_of(containers, found.session_id)
    assert [row[0] for row in rows] == list(range(len(rows)))
    assert [(final.segment_index, final.text) for final in found.finals] == [(row[0], row[3]) for row in rows]
    return rows


async def test_speech_becomes_rows(containers: Containers, speech: list[Speech], figure: Callable[[str], None]) -> None:
    """The finals of speech that is streamed through the published port are the rows in the database."""
    rows = await check_whole(containers, await streamed(containers, speech[0]))
    assert len(rows) >= 2
    assert len(text_of(rows).split()) > 10
    figure(f"containers: {speech[0].duration_s:.0f} s of speech became {len(rows)} rows: {text_of(rows)[:120]}")


@pytest.mark.parametrize("service", ["transcriber", "gateway", "triton-cpu"])
async def test_a_killed_container_loses_nothing(
    containers: Containers, speech: list[Speech], service: str, figure: Callable[[str], None]
) -> None:
    """A container killed during a stream is restarted, and the session completes without lost or doubled segments."""
    undisturbed = text_of(await check_whole(containers, await streamed(containers, speech[1])))
    before = containers.restarts(service)
    found = await streamed(containers, speech[1], lambda: containers.kill(service))
    rows = await check_whole(containers, found)
    assert containers.restarts(service) == before + 1
    assert wer(undisturbed, text_of(rows)) <= WORDS_THAT_MAY_DIFFER
    figure(f"containers: {service} killed: {len(rows)} rows, {found.connection_count} connections of the client")

    async def healthy() -> bool:
        return containers.is_healthy(service)

    await eventually(healthy, f"{service} to be healthy again")


async def test_containers_are_restricted(containers: Containers) -> None:
    """Every container has a read-only root, no capabilities, no way to gain privileges, and a memory limit."""
    for service in EVERY:
        host = containers.engine.inspect(containers.container(service))["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] > 0, service


@pytest.mark.parametrize("service", OURS)
async def test_the_application_cannot_be_written(containers: Containers, service: str) -> None:
    """A process cannot change its own code."""
    containers.engine.docker("exec", containers.container(service), "python", "-c", TRY_TO_WRITE)


async def test_only_the_gateway_is_published(containers: Containers) -> None:
    """Only the gateway's port is open on the machine, and only on its loopback."""
    for service in EVERY:
        ports = containers.engine.inspect(containers.container(service))["NetworkSettings"]["Ports"]
        published = [binding["HostIp"] for bindings in ports.values() for binding in bindings or ()]
        assert published == (["127.0.0.1"] if service == "gateway" else []), service


async def test_a_dead_model_fails_the_probe(containers: Containers) -> None:
    """Triton's container is unhealthy when the process of its model has died, although the server does not notice."""
    container = containers.container("triton-cpu")
    kill = "import os, pathlib, signal\nfor path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    kill += "    words = path.read_bytes().split(b'\\0')\n"
    kill += "    if words[0].endswith(b'triton_python_backend_stub') and b'/models/whisper/' in words[1]:\n"
    kill += "        os.kill(int(path.parent.name), signal.SIGKILL)\n"
    probe = ("exec", container, "python", "-m", "whisperline_models.probe", "--live")
    containers.engine.docker(*probe)
    containers.engine.docker("exec", container, "python", "-c", kill)
    with pytest.raises(AssertionError, match="the process has ended of: whisper 1"):
        containers.engine.docker(*probe)
    containers.compose("restart", "triton-cpu")

    async def healthy() -> bool:
        return containers.is_healthy("triton-cpu")

    await eventually(healthy, "triton to be healthy again", 120)


@pytest.mark.parametrize("service", OURS)
async def test_sigterm_reaches_the_process(containers: Containers, service: str, figure: Callable[[str], None]) -> None:
    """A stopped container exits by itself with status 0, well before it would be killed."""
    began_s = time.monotonic()
    containers.compose("stop", service)
    took_s = time.monotonic() - began_s
    state = containers.engine.inspect(containers.container(service))["State"]
    containers.compose("up", "--detach", "--no-build", "--wait", service)
    assert state["ExitCode"] == 0
    assert took_s < OURS[service]
    figure(f"containers: {service} stopped with {state['ExitCode']} in {took_s:.1f} s of {OURS[service]}")


async def test_data_survives_down_and_up(
    containers: Containers, speech: list[Speech], figure: Callable[[str], None]
) -> None:
    """After `down` and `up` rows and topics are still there, and speech becomes rows again."""
    found = await streamed(containers, speech[2])
    rows = await check_whole(containers, found)
    containers.compose("down")
    took_s = containers.up()
    figure(f"containers: up again, and all healthy, in {took_s:.0f} s")
    assert await rows_of(containers, found.session_id) == rows
    await check_whole(containers, await streamed(containers, speech[2]))
