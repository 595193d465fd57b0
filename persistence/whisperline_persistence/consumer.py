"""Follow `transcriptions` and store it: read a batch, write it to PostgreSQL, and only then commit its offsets.

Whatever happens between two of these steps, writing again is safe: the store accepts the same events any number of
times. So a crash, a rebalance or a lost answer only costs repeated work.

Reactions to errors: the database is away (wait, for as long as it takes, as a member of the group all the while); a
record cannot be used (dead letter, durable before its offset is committed); too many such records in a row (stop).
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from whisperline_contracts import Final
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD
from whisperline_runtime import tracing
from whisperline_runtime.broker import start_client
from whisperline_runtime.process import Stop
from whisperline_runtime.producer import DeadLetters, DurableProducer
from whisperline_runtime.retry import retrying
from whisperline_runtime.tracing import SpanKind

from whisperline_persistence import metrics
from whisperline_persistence.batch import Batch, Entry, Record, Rejected
from whisperline_persistence.settings import Settings
from whisperline_persistence.store import Store, StoreError, StoreRefusedError, StoreUnavailableError

log = logging.getLogger(__name__)
tracer = tracing.tracer(__name__)

_IDLE_POLL_MS = 1_000
_PING_S = 5.0  # how often an idle consumer pings the database, for /health/ready
_HANDOVER_S = 5.0  # how long a rebalance waits for the batch in hand
# Must exceed a handover and a heartbeat. Otherwise the group evicts the member that is handing over, and that member
# rejoins, which causes another rebalance.
_REBALANCE_TIMEOUT_MS = 30_000
_BATCH_BYTES = 8 * MAX_MESSAGE_BYTES

# The group must not evict a member that waits for its database. Heartbeats show that the process is alive,
# /health/live that its event loop turns, and every request to the database has a timeout.
_MAX_POLL_INTERVAL_MS = 2**31 - 1


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """One member of the consumer group.

    It holds at most one batch, of bounded size. While the database is unavailable, it reads nothing more: further
    records wait in Kafka.
    """

    def __init__(self, settings: Settings, store: Store, stop: Stop) -> None:
        self.assigned = False  # True while this process is a member of the group and has its share of the partitions
        self.database_up = False  # True if the database answered its last request
        self._settings = settings
        self._store = store
        self._stop = stop
        self._batch = Batch()
        self._batch_due_s = 0.0
        self._assignment = 0  # counts assignments: offsets read under an older one must not be committed
        self._writing = asyncio.Lock()
        self._asked_s = float("-inf")  # monotonic time of the last request to the database
        self._producer = DurableProducer(settings.broker, settings.group)
        self._unreadable, self._refused = (
            DeadLetters(
                self._producer,
                TRANSCRIPTIONS_DEAD,
                consumer=settings.group,
                limit=settings.dead_letters_in_a_row,
                counter=metrics.DEAD_LETTERS,
            )
            for _ in range(2)
        )
        self._kafka: AIOKafkaConsumer

    def problem(self) -> str | None:
        """Return the reason why this consumer cannot do its work now, or None if it can."""
        if not self.assigned:
            return "no partitions of the log are assigned yet"
        return None if self.database_up else "the database does not answer"

    async def run(self) -> None:
        """Follow the log until `stop` is set; then finish the batch in hand, commit, and leave the group.

        Waits for Kafka as long as the settings say, and for the database as long as it takes. Raises `StartupError`,
        `TooManyDeadLettersError`, and the `KafkaError`s that waiting does not fix.
        """
        async with AsyncExitStack() as opened:
            async with self._stop.interrupts():
                await self._settings.broker.wait_until_reachable(self._settings.start_timeout_s)
                await opened.enter_async_context(self._producer)
                self._kafka = await start_client(self._new_consumer)
                opened.push_async_callback(self._kafka.stop)
            while not self._stop.is_set():
                full = self._batch.bytes >= _BATCH_BYTES or self._batch.size >= self._settings.batch_records
                if self._batch.size == 0:
                    await self._read(_IDLE_POLL_MS)
                    if self._batch.size == 0 and time.monotonic() - self._asked_s > _PING_S:
                        await self._ping()
                elif full or time.monotonic() >= self._batch_due_s:
                    await self._flush()
                else:
                    await self._read(int((self._batch_due_s - time.monotonic()) * 1000))
            await self._flush()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish the batch in hand if the database answers in time. Aiokafka waits for this before it rejoins."""
        self.assigned = False
        try:
            async with asyncio.timeout(_HANDOVER_S):
                await self._flush()
        except TimeoutError:
            log.warning("handing over %d partitions with a batch not stored: its next owner reads it", len(revoked))
        finally:
            # After this, aiokafka resumes from the committed offsets, even in the partitions that we keep.
            self._batch = Batch()
            self._assignment += 1
            metrics.LAG.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note that this process is a member. With more members than partitions, its share may be empty."""
        self.assigned = True
        log.info("assigned partitions %s", sorted(tp.partition for tp in assigned))

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
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

    async def _read(self, wait_ms: int) -> None:
        """Add the available records to the batch, waiting at most `wait_ms` for them."""
        # Await nothing between getmany's return and the last add: a rebalance could happen in between.
        room = self._settings.batch_records - self._batch.size
        records: dict[TopicPartition, list[Record]] = {}
        async with self._stop.interrupts():
            records = await self._kafka.getmany(timeout_ms=max(0, wait_ms), max_records=room)
        if self._batch.size == 0:
            self._batch_due_s = time.monotonic() + self._settings.batch_ms / 1000
        for of_partition in records.values():
            for record in of_partition:
                unreadable = self._batch.add(record)
                if unreadable is None:
                    self._unreadable.reset_count(record.partition)
                else:
                    self._unreadable.count_unusable(record, unreadable.reason)

    async def _flush(self) -> None:
        """Store the batch in hand, send unusable records to the dead letters, and commit."""
        async with self._writing:
            batch, self._batch, assignment = self._batch, Batch(), self._assignment
            if batch.size == 0:
                return
            refused = await self._write(batch.entries)
            for rejected in (*batch.unreadable, *refused):
                await self._unreadable.write(rejected.record, rejected.reason)
            if assignment != self._assignment:
                return
            try:
                await self._kafka.commit(batch.offsets)
            except (CommitFailedError, IllegalStateError) as error:
                log.info("the partitions moved before the commit, their next owner stores the batch again: %r", error)
            for tp, offset in batch.offsets.items():
                metrics.LAG.labels(tp.partition).set(max(0, (self._kafka.highwater(tp) or offset) - offset))

    async def _write(self, entries: Sequence[Entry]) -> list[Rejected]:
        """Store the entries; return those that the database refuses, which are found by halving the batch."""
        if not entries:
            return []
        try:
            await self._write_when_answered(entries)
        except StoreRefusedError as refusal:
            if len(entries) == 1:
                record = entries[0].record
                self._refused.count_unusable(record, str(refusal))
                return [Rejected(record, str(refusal))]
            middle = len(entries) // 2
            return [*await self._write(entries[:middle]), *await self._write(entries[middle:])]
        for entry in entries:
            self._refused.reset_count(entry.record.partition)
        return []

    async def _write_when_answered(self, entries: Sequence[Entry]) -> None:
        """Store the entries in one transaction, retrying while the database is unavailable, and trace each final."""
        events = [entry.event for entry in entries]
        parents = [tracing.extract(entry.record.headers) for entry in entries] if tracing.is_on() else []
        with tracer.start_as_current_span(
            "store batch", kind=SpanKind.CONSUMER, links=tracing.links_to(parents)
        ) as span:
            began_ns = time.time_ns()
            async for attempt in retrying(
                StoreUnavailableError,
                what="writing to the database",
                longest_s=self._settings.retry_max_ms / 1000,
                on_retry=lambda _: self._note_database(up=False),
            ):
                with attempt, metrics.WRITE_SECONDS.time():
                    new_finals = await self._store.write(events)
            self._note_database(up=True)
            metrics.count_finals(events, new_finals)
            if not span.is_recording():
                return
            span.set_attributes(
                {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": TRANSCRIPTIONS,
                    "messaging.batch.message_count": len(entries),
                    "messaging.consumer.group.name": self._settings.group,
                }
            )
            for entry, parent in zip(entries, parents, strict=True):
                trace_final(entry, parent, began_ns, span)

    async def _ping(self) -> None:
        """Find out whether the database answers, while there is nothing to store."""
        try:
            await self._store.ping()
        except StoreError as error:
            log.warning("the database does not answer: %s", error)
            self._note_database(up=False)
        else:
            self._note_database(up=True)

    def _note_database(self, *, up: bool) -> None:
        self._asked_s = time.monotonic()
        self.database_up = up
        metrics.DATABASE_UP.set(up)
        if not up:
            metrics.FAILURES.inc()


def trace_final(entry: Entry, parent: str | None, began_ns: int, batch: tracing.Span) -> None:
    """Record the span of a stored final, in the trace of its segment: the batch has a trace of its own."""
    if not isinstance(entry.event, Final) or parent is None:
        return
    tracer.start_span(
        "store final",
        tracing.context_of(parent),
        kind=SpanKind.CONSUMER,
        start_time=began_ns,
        links=[tracing.Link(batch.get_span_context())],
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": TRANSCRIPTIONS,
            "messaging.destination.partition.id": str(entry.record.partition),
            "messaging.kafka.offset": entry.record.offset,
            "whisperline.session.id": entry.event.session_id,
            "whisperline.segment.index": entry.event.segment_index,
        },
    ).end()
