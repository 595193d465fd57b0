"""The two ends of Kafka that a gateway has: audio into the log, and its own partition of events out of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from whisperline_contracts import AudioChunk, DeadLetter, Event, UnreadableMessage, decode_event
from whisperline_contracts.audio import Header
from whisperline_contracts.broker import Broker
from whisperline_contracts.topics import AUDIO_CHUNKS, MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD

from whisperline_gateway import metrics

log = logging.getLogger("whisperline.gateway")

_OUTAGE_MS = 60_000  # how long a record waits for room; what has room waits for its broker without limit
_BATCH_BYTES = MAX_MESSAGE_BYTES // 2
_LINGER_MS = 5
_RETRY_S = 0.5
_STOP_S = 3.0
_MAX_UNREADABLE_IN_A_ROW = 100  # more look like a wrong release, which must not drain the log into the dead letters


class StartError(Exception):
    """The gateway cannot start; the message says what to do."""


class AudioLog:
    """Appends records to `audio_chunks`, idempotently, with acks of all replicas. One for a whole process.

    A producer that has failed for good (its sequence is broken) is replaced. Records of one caller that awaits each
    `append` keep their order as long as `generation` stays the same: what the failed producer holds for other
    partitions it still writes for a few seconds, beside the new one. What it has not written then, fails.
    """

    def __init__(self, broker: Broker) -> None:
        self.generation = 0  # counts the producers
        self._broker = broker
        self._producer: AIOKafkaProducer | None = None
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, broker: Broker) -> AsyncIterator["AudioLog"]:
        """Connect. Raises `KafkaConnectionError` when no broker answers. At the end, flush for a few seconds."""
        audio_log = cls(broker)
        audio_log._producer = await audio_log._started_producer()
        try:
            yield audio_log
        finally:
            if audio_log._renewal is not None:
                audio_log._renewal.cancel()
                await asyncio.gather(audio_log._renewal, return_exceptions=True)
            await _stop(audio_log._producer)

    async def append(self, chunk: AudioChunk) -> "asyncio.Future[object]":
        """Hand a record over; the future is done when it is durable. Raises `KafkaError`, as the future does."""
        producer = self._current()
        try:
            future: asyncio.Future[object] = await producer.send(
                AUDIO_CHUNKS, chunk.data, key=chunk.session_id.encode(), headers=chunk.headers()
            )
        except KafkaTimeoutError:  # no room in the partition's batch: nothing was lost
            raise
        except KafkaError:
            self._renew(producer)
            raise
        future.add_done_callback(lambda done: self._check(done, producer))
        return future

    async def bury(self, record: ConsumerRecord, reason: str, consumer: str) -> None:
        """Hand an unreadable event over to the dead letters, as it came."""
        letter = DeadLetter(reason, record.topic, record.partition, record.offset, consumer)
        headers = letter.headers(tuple((name, value or b"") for name, value in record.headers))
        try:
            await self._send_letter(record.key or b"", record.value, headers)
        except MessageSizeTooLargeError:  # no room for the reason beside it: the record stays where the letter points
            await self._send_letter(b"", None, letter.headers(()))

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises `StartError` if there is no such topic."""
        cluster = await self._current().client.fetch_all_metadata()
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            raise StartError(
                f"Kafka at {self._broker.bootstrap} has no topic {topic}: create Whisperline's topics first"
            )
        return len(partitions)

    async def _send_letter(self, key: bytes, value: bytes | None, headers: list[Header]) -> None:
        while True:
            try:
                future = await self._current().send(TRANSCRIPTIONS_DEAD, value, key=key, headers=headers)
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                log.warning("the dead letters cannot be written, trying again: %r", error)
                await asyncio.sleep(_RETRY_S)
            else:
                future.add_done_callback(_log_failure)
                return

    def _current(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise KafkaConnectionError("the producer is not running")
        return self._producer

    async def _started_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._broker.client_options(),
            client_id="whisperline-gateway",
            acks="all",
            enable_idempotence=True,
            linger_ms=_LINGER_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=_OUTAGE_MS,
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )
        try:
            await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        return producer

    def _check(self, done: "asyncio.Future[object]", producer: AIOKafkaProducer) -> None:
        if not done.cancelled() and done.exception() is not None:
            self._renew(producer)

    def _renew(self, failed: AIOKafkaProducer) -> None:
        """A batch that fails leaves a hole in the producer's sequence, which no later batch gets past."""
        if self._producer is failed and (self._renewal is None or self._renewal.done()):
            log.error("the Kafka producer has failed and is replaced")
            self._renewal = asyncio.create_task(self._replace(failed), name="replace producer")

    async def _replace(self, failed: AIOKafkaProducer) -> None:
        while True:
            try:
                self._producer = await self._started_producer()
            except KafkaError as error:
                log.warning("no new Kafka producer yet: %s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                break
        self.generation += 1
        if not await _stop(failed):
            await _abandon(failed)


class EventReader:
    """Reads the events of one partition of `transcriptions`, from its end at the time of opening."""

    def __init__(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        self._consumer = consumer
        self._partition = partition

    @classmethod
    @asynccontextmanager
    async def open(cls, broker: Broker, ordinal: int) -> AsyncIterator["EventReader"]:
        """Connect, and find the end of the partition: events from then on will be read."""
        partition = TopicPartition(TRANSCRIPTIONS, ordinal)
        consumer = AIOKafkaConsumer(
            **broker.client_options(),
            client_id=f"whisperline-gateway-{ordinal}",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
            metadata_max_age_ms=60_000,
        )
        try:
            await consumer.start()
            consumer.assign([partition])
            await consumer.seek_to_end(partition)
            await consumer.position(partition)
            yield cls(consumer, partition)
        finally:
            await _stop(consumer)

    async def run(self, route: Callable[[Event], None], audio_log: AudioLog) -> None:
        """Route every event, for ever. What cannot be read goes to the dead letters; too many in a row raise."""
        unreadable = 0
        async for record in self._consumer:
            try:
                event = decode_event(record.value)
            except UnreadableMessage as error:
                unreadable += 1
                await self._bury(record, error.reason, audio_log)
                if unreadable >= _MAX_UNREADABLE_IN_A_ROW:
                    raise RuntimeError(
                        f"{unreadable} events in a row cannot be read: is this release too old?"
                    ) from error
            else:
                unreadable = 0
                route(event)

    async def reachable(self, timeout_s: float) -> bool:
        """Whether the leader of the partition answers in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._consumer.end_offsets([self._partition])
        except (KafkaError, TimeoutError):
            return False
        return True

    async def _bury(self, record: ConsumerRecord, reason: str, audio_log: AudioLog) -> None:
        metrics.UNREADABLE.inc()
        log.warning("event at %s/%d offset %d: %s", record.topic, record.partition, record.offset, reason)
        await audio_log.bury(record, reason, f"gateway-{self._partition.partition}")


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> bool:
    try:
        async with asyncio.timeout(_STOP_S):
            await client.stop()
    except (KafkaError, TimeoutError) as error:
        log.warning("Kafka client did not stop cleanly: %r", error)
        return False
    return True


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Let a producer that cannot flush write nothing more, and fail what it holds: `stop` does neither."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(producer._sender.close(), producer.client.close(), return_exceptions=True)
    producer._message_accumulator.fail_all(KafkaTimeoutError())


def _log_failure(done: "asyncio.Future[object]") -> None:
    if not done.cancelled() and done.exception() is not None:
        log.error("a dead letter could not be written: %r", done.exception())
