"""The consumer stores each event once, whatever process dies, record is refused or partition moves meanwhile."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr
from whisperline_contracts import (
    Event,
    Final,
    Partial,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    StreamOptions,
    Word,
    encode_event,
)
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD
from whisperline_local import Stack
from whisperline_persistence import Store
from whisperline_persistence.consumer import Consumer
from whisperline_persistence.settings import Settings
from whisperline_runtime.errors import TooManyDeadLettersError
from whisperline_runtime.process import Stop

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


class Told:
    """Return the events of a session of `count` segments: a start, a partial before each final, an end."""

    def __init__(self, count: int) -> None:
        self.id = uuid.uuid4().hex
        self._origin: dict[str, Any] = {"session_id": self.id, "connection_id": "c1", "client_id": "me"}
        self.start = SessionStart(**self._origin, time_ms=1, sample_rate=16_000, channels=1, options=StreamOptions())
        self.finals = [self.final(index) for index in range(count)]
        self.end = SessionEnd(
            **self._origin, time_ms=9, segment_count=count, duration_ms=count * 1_000, reason="closed"
        )

    def final(self, index: int, model: str = "tiny.en") -> Final:
        words = ("so", "it", "goes", f"for the {index}th time")
        return Final(
            **self._origin,
            time_ms=2 + index,
            segment_index=index,
            start_ms=index * 1_000,
            end_ms=index * 1_000 + 900,
            text=" ".join(words),
            words=tuple(Word(word=word, start_ms=index, end_ms=index + 1, confidence=1 / 3) for word in words),
            language="en",
            confidence=0.7,
            reason=SegmentEnd.SILENCE,
            model=model,
            model_version="1",
            position=index * 16_000,
        )

    def partial(self, index: int) -> Partial:
        return Partial(
            **self._origin, time_ms=2, segment_index=index, start_ms=index, end_ms=index + 1, text="so", stable_text=""
        )

    @property
    def events(self) -> list[Event]:
        spoken = (event for final in self.finals for event in (self.partial(final.segment_index), final))
        return [self.start, *spoken, self.end]


@dataclass
class Log:
    """The log as one test sees it: the test writes records, and a consumer group of its own reads them."""

    stack: Stack
    group: str
    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient
    transcriptions: AIOKafkaConsumer
    letters: AIOKafkaConsumer

    async def publish(self, events: Iterable[Event | bytes]) -> list[Any]:
        """Write events, or bytes that are not events; return their positions. A session's events stay in order."""
        sent = []
        for event in events:
            value = event if isinstance(event, bytes) else encode_event(event)
            key = b"garbage" if isinstance(event, bytes) else event.session_id.encode()
            sent.append(await self.producer.send(TRANSCRIPTIONS, value, key=key, headers=[("kept", b"as it was")]))
        return [await delivery for delivery in sent]

    async def caught_up(self) -> bool:
        """Return True if the group has committed every record."""
        ends = await self.transcriptions.end_offsets(self.transcriptions.assignment())
        committed = await self.admin.list_consumer_group_offsets(self.group)
        # A broker that has just restarted may not have loaded the group's offsets yet.
        return all(tp in committed and committed[tp].offset == end for tp, end in ends.items())

    async def dead_letters(self) -> list[ConsumerRecord]:
        """Return the dead letters that came since the last call, or since the start of the test."""
        (tp,) = self.letters.assignment()
        end = (await self.letters.end_offsets([tp]))[tp]
        read: list[ConsumerRecord] = []
        while await self.letters.position(tp) < end:
            read += (await self.letters.getmany(timeout_ms=500)).get(tp, [])
        return read

    async def members(self) -> set[str]:
        """Return the ids of the group's members; one that left and came back has another."""
        (response,) = await self.admin.describe_consumer_groups([self.group])
        _error, _group, _state, _protocol_type, _protocol, members, *_ = response.groups[0]
        return {member[0] for member in members}


@pytest_asyncio.fixture(loop_scope="session")
async def log(stack: Stack) -> AsyncIterator[Log]:
    """The log with a new group that starts at its end, so that a test only sees its own records."""
    kafka, group = stack.kafka_bootstrap, f"persistence-{uuid.uuid4().hex}"
    async with AsyncExitStack() as opened:
        producer = await opened.enter_async_context(AIOKafkaProducer(bootstrap_servers=kafka, acks="all"))
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        opened.push_async_callback(admin.close)
        await admin.start()
        transcriptions = await opened.enter_async_context(
            AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
        )
        transcriptions.assign(
            [TopicPartition(TRANSCRIPTIONS, i) for i in await producer.partitions_for(TRANSCRIPTIONS)]
        )
        await transcriptions.commit(await transcriptions.end_offsets(transcriptions.assignment()))
        letters = await opened.enter_async_context(AIOKafkaConsumer(bootstrap_servers=kafka))
        letters.assign([TopicPartition(TRANSCRIPTIONS_DEAD, 0)])
        await letters.seek_to_end()
        yield Log(stack, group, producer, admin, transcriptions, letters)


def consumer_settings(log: Log, **changes: Any) -> Settings:
    return Settings(
        database_url=SecretStr(log.stack.database_url),
        kafka_bootstrap=log.stack.kafka_bootstrap,
        group=log.group,
        **{"retry_max_ms": 500, "batch_ms": 50, "session_timeout_ms": 6_000, **changes},
    )


@asynccontextmanager
async def consuming(log: Log, **changes: Any) -> AsyncIterator[Consumer]:
    """Run a member of the group; at the end stop it gracefully and raise its error, if any."""
    stop = Stop()
    async with Store.open(log.stack.database_url, 2) as store:
        consumer = Consumer(consumer_settings(log, **changes), store, stop)
        running = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)


@asynccontextmanager
async def words_locked(stack: Stack) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Lock the table of words, which blocks a transaction that stores finals; yield a check that one is blocked."""
    watching = await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True)
    holding = await psycopg.AsyncConnection.connect(stack.database_url)

    async def is_stuck() -> bool:
        rows = await watching.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return rows.rowcount > 0

    try:
        await holding.execute("LOCK TABLE words IN ACCESS EXCLUSIVE MODE")
        yield is_stuck
    finally:
        await holding.close()
        await watching.close()


async def is_true(value: bool) -> bool:
    return value


async def assert_stored(store: Store, sessions: Iterable[Told]) -> None:
    """Assert that each session's rows match the log: none missing, none twice, and no others."""
    for told in sessions:
        assert await store.finals(told.id) == told.finals
        session = await store.session(told.id)
        assert session is not None
        assert (session.started_ms, session.ended_ms, session.segment_count) == (1, 9, len(told.finals))


async def test_events_become_rows(store: Store, log: Log, eventually: Eventually) -> None:
    """Starts, finals and ends of many sessions become rows, and every offset is committed, those of partials too."""
    sessions = [Told(count) for count in (0, 1, 3, 40)]
    async with consuming(log):
        await log.publish(event for told in sessions for event in told.events)
        await eventually(log.caught_up)
    await assert_stored(store, sessions)


async def test_redelivered_segments_are_stored_once(store: Store, log: Log, eventually: Eventually) -> None:
    """Events that are delivered again, in the same batch or a later one, do not change the rows."""
    told = Told(10)
    async with consuming(log, batch_records=7):
        await log.publish([*told.events, *told.events])
        await eventually(log.caught_up)
        await log.publish(told.events)
        await eventually(log.caught_up)
    await assert_stored(store, [told])


async def test_unreadable_records_are_dead_letters(store: Store, log: Log, eventually: Eventually) -> None:
    """Garbage and records of a newer major version become dead letters with reason and origin; the rest is stored."""
    told = Told(3)
    newer = json.dumps({**json.loads(encode_event(told.finals[0])), "schema": "2.0"}).encode()
    async with consuming(log):
        written = await log.publish([*told.events[:3], b"\xff\x00 garbage", b"", newer, *told.events[3:]])
        await eventually(log.caught_up)
    await assert_stored(store, [told])
    letters = await log.dead_letters()
    assert [letter.value for letter in letters] == [b"\xff\x00 garbage", b"", newer]
    for letter, came_from in zip(letters, written[3:6], strict=True):
        headers = dict(letter.headers)
        assert letter.key == b"garbage"
        assert headers["kept"] == b"as it was"
        assert headers["dead_letter.topic"] == TRANSCRIPTIONS.encode()
        assert headers["dead_letter.partition"] == str(came_from.partition).encode()
        assert headers["dead_letter.offset"] == str(came_from.offset).encode()
        assert headers["dead_letter.consumer"] == log.group.encode()
    assert b"schema version 2.0" in dict(letters[2].headers)["dead_letter.reason"]


async def test_a_record_too_large_for_the_dead_letters_leaves_its_origin(log: Log, eventually: Eventually) -> None:
    """If an unreadable record leaves no room for the reason, its dead letter has the origin but no value."""
    async with consuming(log):
        (written,) = await log.publish([b"x" * (MAX_MESSAGE_BYTES - 150)])
        await eventually(log.caught_up)
    (letter,) = await log.dead_letters()
    assert letter.value is None
    assert dict(letter.headers)["dead_letter.offset"] == str(written.offset).encode()


async def test_poison_rows_are_dead_letters(store: Store, log: Log, eventually: Eventually) -> None:
    """Rows that the database refuses become dead letters; the other rows of their batch are stored."""
    told = Told(20)
    poison = [told.final(2**31), told.final(2**40), told.final(3, model="nul\0")]
    mixed: list[Event | bytes] = [*told.events]
    for place, event in zip((2, 11, 30), poison, strict=True):
        mixed.insert(place, event)
    mixed.remove(told.finals[3])
    async with consuming(log):
        await log.publish(mixed)
        await eventually(log.caught_up)
    assert await store.finals(told.id) == [final for final in told.finals if final.segment_index != 3]
    letters = await log.dead_letters()
    assert [letter.value for letter in letters] == [encode_event(event) for event in poison]
    assert b"out of range" in dict(letters[0].headers)["dead_letter.reason"]


@pytest.mark.parametrize("record", [b"garbage", encode_event(Told(0).final(-1))], ids=["unreadable", "refused"])
async def test_too_many_dead_letters_in_a_row_stop_the_consumer(log: Log, record: bytes) -> None:
    """A release that cannot use any record stops at the limit, before it drains the log."""
    await log.publish([record] * 30)
    with pytest.raises(TooManyDeadLettersError, match=r"20 records in a row.*transcriptions\[\d\] offset"):
        async with asyncio.timeout(30), Store.open(log.stack.database_url) as store:
            await Consumer(consumer_settings(log), store, Stop()).run()
    assert await log.dead_letters() == []
    assert not await log.caught_up()


async def test_a_database_killed_in_the_middle_of_a_batch_loses_nothing(
    stack: Stack, store: Store, log: Log, eventually: Eventually
) -> None:
    """The batch is written again when the database is back, and the consumer stays in its group until then."""
    sessions = [Told(30) for _ in range(4)]
    async with consuming(log) as consumer:
        await eventually(lambda: is_true(consumer.assigned))
        before = await log.members()
        async with words_locked(stack) as is_stuck:
            await log.publish(event for told in sessions for event in told.events)
            await eventually(is_stuck)
            stack.kill("postgres")
            await eventually(lambda: is_true(not consumer.database_up))
        assert not await log.caught_up()
        await stack.wait_healthy("postgres")
        await eventually(log.caught_up)
        assert consumer.database_up
        assert await log.members() == before
    await assert_stored(store, sessions)


async def test_a_database_that_is_away_at_the_start_is_waited_for(
    stack: Stack, store: Store, log: Log, eventually: Eventually
) -> None:
    """A consumer that starts before its database is not ready at first, and stores everything once it is up."""
    told = Told(5)
    await stack.stop("postgres")
    async with consuming(log) as consumer:
        await log.publish(told.events)
        await eventually(lambda: is_true(consumer.assigned))
        assert consumer.database_up is False
        await stack.start("postgres")
        await eventually(log.caught_up)
        assert consumer.database_up is True
    await assert_stored(store, [told])


async def test_an_idle_consumer_notices_that_its_database_is_away(
    stack: Stack, log: Log, eventually: Eventually
) -> None:
    """A consumer with nothing to store still becomes unready when its database is unavailable."""
    async with consuming(log) as consumer:
        await eventually(lambda: is_true(consumer.database_up))
        await stack.stop("postgres")
        try:
            await eventually(lambda: is_true(not consumer.database_up))
        finally:
            await stack.start("postgres")
        await eventually(lambda: is_true(consumer.database_up))


async def test_members_come_and_go_and_nothing_is_lost(store: Store, log: Log, eventually: Eventually) -> None:
    """Each segment is stored once while members join and leave the group."""
    sessions = [Told(5) for _ in range(60)]
    waiting = iter(sessions)

    async def publish(count: int) -> None:
        for _ in range(count):
            await log.publish(next(waiting).events)

    async with consuming(log) as first:
        async with consuming(log) as second:
            await eventually(lambda: is_true(first.assigned and second.assigned))
            assert len(await log.members()) == 2
            await publish(20)
            async with consuming(log) as third:
                await publish(20)
                await eventually(lambda: is_true(third.assigned))
        await publish(20)
        await eventually(log.caught_up)
        assert len(await log.members()) == 1
    await assert_stored(store, sessions)


async def test_a_batch_that_outlasts_the_handover_is_stored_by_its_next_owner(
    stack: Stack, store: Store, log: Log, eventually: Eventually
) -> None:
    """A member whose write hangs still gives up its partitions, and its batch is stored once."""
    sessions = [Told(10) for _ in range(8)]
    async with consuming(log) as first, AsyncExitStack() as joined:
        async with words_locked(stack) as is_stuck:
            await log.publish(event for told in sessions for event in told.events)
            await eventually(is_stuck)
            second = await joined.enter_async_context(consuming(log))
            await eventually(lambda: is_true(second.assigned and first.assigned))
            assert len(await log.members()) == 2
            assert not await log.caught_up()
        await eventually(log.caught_up)
    await assert_stored(store, sessions)


async def test_a_broker_killed_and_restarted_loses_nothing(
    stack: Stack, store: Store, log: Log, eventually: Eventually
) -> None:
    """The consumer survives the death of its broker and goes on where it was."""
    before, after = [Told(10) for _ in range(4)], [Told(10) for _ in range(4)]
    async with consuming(log):
        await log.publish(event for told in before for event in told.events)
        stack.kill("kafka")
        await stack.wait_healthy("kafka")
        await log.publish(event for told in after for event in told.events)
        await eventually(log.caught_up)
    await assert_stored(store, [*before, *after])
