"""The stack on real parts: Kafka and PostgreSQL survive kills, stop on request, and leave no process."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from whisperline_contracts.topics import topics
from whisperline_local import AlreadyRunning, LocalSettings, PortTaken, Stack
from whisperline_local.settings import CHECKOUT

pytestmark = pytest.mark.integration

PORT_OFFSET = 3_000
LIMIT_S = 90.0
GONE_LIMIT_S = 10.0


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    """A state folder of its own; downloads are shared with `make up`."""
    return LocalSettings(state_dir=tmp_path / "state", cache_dir=CHECKOUT / ".state/cache", port_offset=PORT_OFFSET)


def processes_of(settings: LocalSettings) -> list[psutil.Process]:
    """Return the living processes that name the state folder or have a port of this stack in their command."""
    marks = (str(settings.state), f"--port={settings.ports.postgres}")
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.pid != os.getpid() and any(mark in words for mark in marks):
            found.append(process)
    return found


async def gone(processes: Sequence[psutil.Process]) -> bool:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, GONE_LIMIT_S)
    return not alive


async def topic_names(stack: Stack) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def test_killed_services_come_back_with_their_data(settings: LocalSettings) -> None:
    """Topics and rows survive SIGKILL of broker and database, and the end leaves no process and no listener."""
    async with Stack(settings, ["kafka", "postgres"]) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        for name in ("kafka", "postgres"):
            before = stack.pid(name)
            stack.kill(name)
            await stack.wait_healthy(name, LIMIT_S)
            assert stack.pid(name) not in (None, before)
            assert stack.restarts(name) == 1
        assert {topic.name for topic in topics()} <= await topic_names(stack)
        with psycopg.connect(stack.database_url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        running = processes_of(settings)
        assert len(running) >= 2
    assert await gone(running)
    assert processes_of(settings) == []


async def test_a_service_can_be_stopped_and_started(settings: LocalSettings) -> None:
    """A service that was stopped stays stopped until it is started."""
    async with Stack(settings, ["postgres"]) as stack:
        await stack.stop("postgres")
        assert stack.pid("postgres") is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(stack.database_url)
        await stack.start("postgres")
        psycopg.connect(stack.database_url).close()


async def test_a_state_folder_that_was_removed_starts_afresh(settings: LocalSettings) -> None:
    """A removed state folder starts with a new password and an empty database, even if data lay outside of it."""
    for _ in range(2):
        async with Stack(settings, ["postgres"]) as stack:
            with psycopg.connect(stack.database_url) as connection:
                connection.execute("CREATE TABLE once (id int)")
        shutil.rmtree(settings.state)


async def test_a_second_stack_on_the_same_folder_is_refused(settings: LocalSettings) -> None:
    """A second stack on the same folder is refused, and the first one is not disturbed."""
    async with Stack(settings, ["postgres"]) as stack:
        with pytest.raises(AlreadyRunning, match="WHISPERLINE_LOCAL_STATE_DIR"):
            await Stack(settings, ["postgres"]).__aenter__()
        psycopg.connect(stack.database_url).close()


async def test_a_taken_port_stops_the_start_before_anything_runs(settings: LocalSettings) -> None:
    """If a port is taken, nothing is started and the state folder is unlocked again."""
    with socket.create_server(("127.0.0.1", settings.ports.postgres)):
        with pytest.raises(PortTaken, match="WHISPERLINE_LOCAL_POSTGRES_PORT"):
            await Stack(settings, ["postgres"]).__aenter__()
        assert processes_of(settings) == []
    async with Stack(settings, ["postgres"]):
        pass


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_command_leaves_no_process_however_it_ends(settings: LocalSettings, how: signal.Signals) -> None:
    """The command leaves no process: SIGTERM stops it with exit status 0; after SIGKILL, Linux ends its children."""
    env = {
        **os.environ,
        "WHISPERLINE_LOCAL_STATE_DIR": str(settings.state),
        "WHISPERLINE_LOCAL_CACHE_DIR": str(settings.cache),
        "WHISPERLINE_LOCAL_PORT_OFFSET": str(PORT_OFFSET),
    }
    command = (sys.executable, "-m", "whisperline_local", "up", "--only", "postgres")
    supervisor = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE)
    assert supervisor.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        while b"postgres" not in (line := await supervisor.stdout.readline()) or b"healthy" not in line:
            assert line, "the command ended"
    running = processes_of(settings)
    assert running
    supervisor.send_signal(how)
    await supervisor.communicate()
    assert supervisor.returncode == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    assert await gone(running)
    assert processes_of(settings) == []
