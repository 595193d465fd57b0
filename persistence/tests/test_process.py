"""The process: its settings, its probes, its end, and the migrations."""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from psycopg import sql
from whisperline_contracts import Final, SegmentEnd, encode_event
from whisperline_contracts.topics import TRANSCRIPTIONS
from whisperline_local import Stack
from whisperline_persistence import Store, migrate

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]
PROBES = "http://127.0.0.1:19130"
URL = "postgresql://nobody@127.0.0.1:1/none"


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m whisperline_persistence` with only these settings; kill it if the body ends first."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERLINE_")}
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "whisperline_persistence", *arguments),
        env={**inherited, **{f"WHISPERLINE_PERSISTENCE_{name.upper()}": value for name, value in environment.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


def settings_of(stack: Stack) -> dict[str, str]:
    return {
        "database_url": stack.database_url,
        "kafka_bootstrap": stack.kafka_bootstrap,
        "metrics_port": "19130",
        "session_timeout_ms": "6000",
        "dead_letters_in_a_row": "1000",  # the log holds what other tests wrote
    }


async def answer(path: str) -> int:
    """Return the HTTP status of a probe, 0 if nothing answers."""
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(PROBES + path)).status_code
        except httpx.TransportError:
            return 0


async def ended(running: asyncio.subprocess.Process) -> tuple[int, str]:
    _, errors = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode is not None
    return running.returncode, errors.decode()


async def publish(stack: Stack, *finals: Final) -> None:
    async with AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap, acks="all") as producer:
        for final in finals:
            await producer.send_and_wait(TRANSCRIPTIONS, encode_event(final), key=final.session_id.encode())


def a_final(session_id: str, index: int) -> Final:
    return Final(
        session_id=session_id,
        connection_id="c",
        client_id="me",
        time_ms=1,
        segment_index=index,
        start_ms=0,
        end_ms=1,
        text="",
        words=(),
        language="en",
        confidence=1,
        reason=SegmentEnd.END,
        model="tiny.en",
        model_version="1",
        position=1,
    )


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "DATABASE_URL: Field required"),
        (
            {"database_url": "secret-word"},
            "DATABASE_URL: is not of the form postgresql://user:password@host:port/database",
        ),
        (
            {"database_url": URL, "batch_records": "0"},
            "BATCH_RECORDS: Input should be greater than or equal to 1",
        ),
        (
            {"database_url": URL, "metrics_port": "65536"},
            "METRICS_PORT: Input should be less than or equal to 65535",
        ),
    ],
    ids=["missing", "no URL", "too small", "too large"],
)
async def test_a_wrong_setting_is_named(environment: dict[str, str], named: str) -> None:
    """The process ends at once with one line that names the setting."""
    async with process(**environment) as running:
        assert await ended(running) == (2, f"WHISPERLINE_PERSISTENCE_{named}\n")


async def test_the_process_stores_counts_and_stops(stack: Stack, store: Store, eventually: Eventually) -> None:
    """The process becomes ready, stores, counts its finals, and ends with 0 within its deadline after SIGTERM."""
    session_id = uuid.uuid4().hex
    async with process(**settings_of(stack)) as running:
        await eventually(lambda: _is(answer("/health/ready"), 200))
        await publish(stack, a_final(session_id, 0))
        await eventually(lambda: store.finals(session_id))
        assert await answer("/health/live") == 200
        assert await answer("/other") == 404
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(PROBES + "/metrics")).text
        assert 'whisperline_persistence_finals_total{outcome="stored"}' in metrics
        assert "whisperline_persistence_database_up 1.0" in metrics
        began_s = time.monotonic()
        running.send_signal(signal.SIGTERM)
        code, errors = await ended(running)
        assert code == 0
        assert "Traceback" not in errors
        assert time.monotonic() - began_s < 8
    assert await store.finals(session_id) == [a_final(session_id, 0)]


async def test_a_killed_process_loses_nothing(stack: Stack, store: Store, eventually: Eventually) -> None:
    """If a process is killed in the middle of a transaction, the next one stores the batch."""
    session_id = uuid.uuid4().hex
    finals = [a_final(session_id, index) for index in range(50)]
    async with await psycopg.AsyncConnection.connect(stack.database_url) as holding:
        async with process(**settings_of(stack)) as first:
            await eventually(lambda: _is(answer("/health/ready"), 200))
            await holding.execute("LOCK TABLE words IN ACCESS EXCLUSIVE MODE")
            await publish(stack, *finals)
            await eventually(lambda: waits_for_a_lock(stack))
            first.kill()
            await first.wait()
        await holding.rollback()
        async with process(**settings_of(stack)):
            await eventually(lambda: store.finals(session_id, 49))
    assert await store.finals(session_id) == finals


async def test_a_stop_while_the_database_is_away_is_quick(stack: Stack, store: Store, eventually: Eventually) -> None:
    """A process that stops with a batch that it cannot store leaves the batch in the log for the next process."""
    session_id = uuid.uuid4().hex
    async with process(**settings_of(stack), shutdown_ms="1000") as first:
        await eventually(lambda: _is(answer("/health/ready"), 200))
        await stack.stop("postgres")
        try:
            await publish(stack, a_final(session_id, 0))
            await eventually(lambda: _is(answer("/health/ready"), 503))
            assert await answer("/health/live") == 200
            first.send_signal(signal.SIGTERM)
            code, errors = await ended(first)
        finally:
            await stack.start("postgres")
    assert code == 0
    assert "the next process does again" in errors
    async with process(**settings_of(stack)):
        await eventually(lambda: store.finals(session_id))


async def test_a_process_that_waits_for_kafka_stops_on_sigterm(stack: Stack) -> None:
    """A process that waits for Kafka is live but not ready, and ends with 0 on SIGTERM."""
    settings = {**settings_of(stack), "kafka_bootstrap": "127.0.0.1:1"}
    async with process(**settings) as running:
        assert running.stderr is not None
        while b"reaching Kafka failed" not in await asyncio.wait_for(running.stderr.readline(), 30):
            pass
        assert await answer("/health/ready") == 503
        running.send_signal(signal.SIGTERM)
        code, _ = await ended(running)
        assert code == 0


async def test_two_migrations_at_once_make_one_schema(stack: Stack) -> None:
    """Two simultaneous migrations of an empty database both succeed, and a third changes nothing."""
    async with empty_database(stack) as url:
        versions = await asyncio.gather(*(asyncio.to_thread(migrate, url, 30) for _ in range(2)))
        assert set(versions) == {await asyncio.to_thread(migrate, url)}
        async with Store.open(url) as store:
            await store.ping()


async def test_a_migration_waits_for_the_database(stack: Stack, eventually: Eventually) -> None:
    """A migration that starts before the database runs once the database is up."""
    async with empty_database(stack) as url:
        await stack.stop("postgres")
        async with process("migrate", **{**settings_of(stack), "database_url": url}) as running:
            assert running.stderr is not None
            line = await asyncio.wait_for(running.stderr.readline(), 30)
            assert b"waiting for the database" in line
            await stack.start("postgres")
            code, errors = await ended(running)
        assert (code, "the schema is at version" in errors) == (0, True)


async def test_a_migration_does_not_wait_for_ever() -> None:
    """If the database does not answer in time, the command ends with 1 and does not print the password."""
    url = "postgresql://someone:secret-word@127.0.0.1:1/nothing"
    async with process("migrate", database_url=url, migrate_wait_ms="300") as running:
        code, errors = await ended(running)
    assert code == 1
    assert "the database did not answer in time" in errors
    assert "secret-word" not in errors


@asynccontextmanager
async def empty_database(stack: Stack) -> AsyncIterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield f"{stack.database_url.rpartition('/')[0]}/{name}"


async def waits_for_a_lock(stack: Stack) -> bool:
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        rows = await connection.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return rows.rowcount > 0


async def _is(status: Awaitable[int], expected: int) -> bool:
    return await status == expected
