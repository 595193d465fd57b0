"""Follows `transcriptions` and stores it: reads a batch, writes it, and only then commits its offsets.

What may happen between any two of these steps is answered by writing again: the store takes the same events any
number of times. So a crash, a rebalance or an answer that was lost costs repeated work and nothing else.

Reactions to errors: the database is away (back off and try again, for as long as it takes, a member of the group
all the while), a record is no good (dead letter, durable before its offset is committed), too many such records in
a row (stop).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)
from whisperline_contracts import DeadLetter
from whisperline_contracts.audio import Header
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD

from whisperline_persistence.backoff import delays_s
from whisperline_persistence.batch import Batch, Entry, Rejected, Streak
from whisperline_persistence.metrics import DEAD_LETTERS, FAILURES, LAG, WRITE_SECONDS, Health, count_finals
from whisperline_persistence.settings import Settings
from whisperline_persistence.store import Store, StoreAway, StoredEvent, StoreError, StoreRefused

T = TypeVar("T")
Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer)

log = logging.getLogger(__name__)

_IDLE_POLL_MS = 1_000
_PING_S = 5.0  # how often an idle consumer asks the database whether it is there, for /ready
_HANDOVER_S = 5.0  # how long a rebalance waits for the batch in hand
# The group must wait longer than that, and a heartbeat more: else it would throw out who hands over, who would join
# again, which is another rebalance.
_REBALANCE_TIMEOUT_MS = 30_000
_BATCH_BYTES = 8 * MAX_MESSAGE_BYTES

# The group must not give up on a member that waits for its database: heartbeats tell that it lives, /live that its
# event loop turns, and each request to the database ends in time.
_MAX_POLL_INTERVAL_MS = 2**31 - 1


class _Stopped(Exception):
    """The process was told to stop while it waited."""


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """One member of the consumer group.

    At most one batch is in hand, of bounded size; while the database is away nothing more is read, and what waits
    waits in Kafka.
    """

    def __init__(self, settings: Settings, store: Store, health: Health, stop: asyncio.Event) -> None:
        self._settings = settings
        self._store = store
        self._health = health
        self._stop = stop
        self._batch = Batch()
        self._batch_due_s = 0.0
        self._assignment = 0  # counts assignments: what was read under an older one must not be committed
        self._writing = asyncio.Lock()
        self._asked_s = float("-inf")  # when the database was last asked
        self._unreadable = Streak(settings.dead_letters_in_a_row)
        self._refused = Streak(settings.dead_letters_in_a_row)

    async def run(self) -> None:
        """Follow the log until `stop` is set; then finish the batch in hand, commit, and leave the group.

        Waits for Kafka and for the database as long as it takes. Raises `TooManyDeadLettersError`, and for what
        waiting does not cure `BrokerRefused` (at the start) or `KafkaError`.
        """
        with suppress(_Stopped):
            async with self._started(self._new_consumer) as self._kafka, self._started(_new_producer) as self._dead:
                await self._follow()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish the batch in hand, if the database lets us in time; aiokafka waits for this before it rejoins."""
        self._health.assigned = False
        try:
            async with asyncio.timeout(_HANDOVER_S):
                await self._flush()
        except TimeoutError:
            log.warning("handing over %d partitions with a batch not stored: its next owner reads it", len(revoked))
        finally:
            # aiokafka goes back to the committed offsets after this, of the partitions that we keep too.
            self._batch = Batch()
            self._assignment += 1
            LAG.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note that we are a member; with more members than partitions our share may be none."""
        self._health.assigned = True
        log.info("assigned partitions %s", sorted(tp.partition for tp in assigned))

    async def _follow(self) -> None:
        with suppress(_Stopped):
            while True:
                await self._unless_stopped(self._read())
                if self._batch.size == 0:
                    await self._ping()
                elif self._room() <= 0 or time.monotonic() >= self._batch_due_s:
                    await self._flush()
        await self._flush()

    def _room(self) -> int:
        full = self._batch.bytes >= _BATCH_BYTES
        return 0 if full else self._settings.batch_records - self._batch.size

    async def _read(self) -> None:
        """Add to the batch what the log has, waiting no longer than until the batch is due."""
        wait_ms = _IDLE_POLL_MS if self._batch.size == 0 else self._ms_until_due()
        # Nothing may be awaited between getmany's return and the last add: a rebalance would come between.
        records = await self._kafka.getmany(timeout_ms=wait_ms, max_records=self._room())
        if self._batch.size == 0:
            self._batch_due_s = time.monotonic() + self._settings.batch_ms / 1000
        for of_partition in records.values():
            self._batch.add(of_partition, self._unreadable)

    def _ms_until_due(self) -> int:
        return max(0, int((self._batch_due_s - time.monotonic()) * 1000))

    async def _flush(self) -> None:
        """Store the batch in hand, bury what is no good, and commit."""
        async with self._writing:
            batch, self._batch, assignment = self._batch, Batch(), self._assignment
            if batch.size == 0:
                return
            refused = await self._write(batch.entries)
            for rejected in (*batch.unreadable, *refused):
                await self._bury(rejected)
            if assignment == self._assignment:
                await self._commit(batch.offsets)

    async def _write(self, entries: Sequence[Entry]) -> list[Rejected]:
        """Store the entries, and return those that the database refuses, found by halving."""
        if not entries:
            return []
        try:
            await self._write_when_answered([entry.event for entry in entries])
        except StoreRefused as refusal:
            if len(entries) == 1:
                return [self._refused.bad(Rejected(entries[0].record, str(refusal)))]
            middle = len(entries) // 2
            return [*await self._write(entries[:middle]), *await self._write(entries[middle:])]
        self._refused.good()
        return []

    async def _write_when_answered(self, events: Sequence[StoredEvent]) -> None:
        for delay_s in delays_s(cap_s=self._settings.retry_max_ms / 1000):
            try:
                with WRITE_SECONDS.time():
                    new_finals = await self._store.write(events)
            except StoreAway as error:
                self._database_away(error)
                await asyncio.sleep(delay_s)
            else:
                self._database_answered()
                count_finals(events, new_finals)
                return

    async def _ping(self) -> None:
        if time.monotonic() - self._asked_s < _PING_S:
            return
        try:
            await self._store.ping()
        except StoreError as error:
            self._database_away(error)
        else:
            self._database_answered()

    def _database_answered(self) -> None:
        self._asked_s = time.monotonic()
        self._health.database_answered(True)

    def _database_away(self, error: StoreError) -> None:
        self._asked_s = time.monotonic()
        self._health.database_answered(False)
        FAILURES.inc()
        log.warning("the database is away, trying again: %s", error)

    async def _bury(self, rejected: Rejected) -> None:
        """Send a record to the dead letters; return when Kafka has it."""
        record = rejected.record
        letter = DeadLetter(rejected.reason, record.topic, record.partition, record.offset, self._settings.group)
        headers = letter.headers(tuple((name, value or b"") for name, value in record.headers))
        key = b"" if record.key is None and record.value is None else record.key  # there must be one of them
        log.error("dead letter: %s", rejected)
        try:
            await self._send(key, record.value, headers)
        except MessageSizeTooLargeError:
            # The headers did not fit beside it; the record itself stays where they point to.
            await self._send(b"", None, letter.headers(()))
        DEAD_LETTERS.inc()

    async def _send(self, key: bytes | None, value: bytes | None, headers: list[Header]) -> None:
        for delay_s in delays_s(cap_s=self._settings.retry_max_ms / 1000):
            try:
                await self._dead.send_and_wait(TRANSCRIPTIONS_DEAD, value, key=key, headers=headers)
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):  # a time-out: no room for it yet
                    raise
                log.warning("the dead letters cannot be written, trying again: %r", error)
                await asyncio.sleep(delay_s)
            else:
                return

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            await self._kafka.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            log.info("the partitions moved before the commit, their next owner stores the batch again: %r", error)
        for tp, offset in offsets.items():
            LAG.labels(tp.partition).set(max(0, (self._kafka.highwater(tp) or offset) - offset))

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` does, or cancel it and raise `_Stopped` as soon as we are told to stop."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait({working})
            raise _Stopped
        finally:
            stopping.cancel()
            working.cancel()

    @asynccontextmanager
    async def _started(self, new: Callable[[Settings], Client]) -> AsyncIterator[Client]:
        """Start a Kafka client, waiting for the broker as long as it takes, and stop it at the end."""
        for delay_s in delays_s(cap_s=self._settings.retry_max_ms / 1000):
            client = new(self._settings)
            try:
                if await self._starts(client):
                    yield client
                    return
            finally:
                await client.stop()
            await self._unless_stopped(asyncio.sleep(delay_s))

    async def _starts(self, client: AIOKafkaConsumer | AIOKafkaProducer) -> bool:
        try:
            await self._unless_stopped(self._settings.broker.reach())
            await self._unless_stopped(client.start())
        except KafkaError as error:
            log.warning("Kafka is away, trying again: %r", error)
            return False
        return True

    def _new_consumer(self, settings: Settings) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **settings.broker.client_options(),
            group_id=settings.group,
            client_id=settings.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.session_timeout_ms // 4,
            rebalance_timeout_ms=_REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            fetch_max_bytes=_BATCH_BYTES,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
        )
        consumer.subscribe([TRANSCRIPTIONS], listener=self)
        return consumer


def _new_producer(settings: Settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **settings.broker.client_options(),
        client_id=settings.group,
        acks="all",
        enable_idempotence=True,
        max_request_size=MAX_MESSAGE_BYTES,
    )
