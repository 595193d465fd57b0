"""The gateway's use of Kafka: it writes audio to one topic, and reads its own partition of events from another."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from aiokafka.structs import RecordMetadata
from whisperline_contracts import AudioChunk, Event, UnreadableMessage, decode_event
from whisperline_contracts.topics import AUDIO_CHUNKS, MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD
from whisperline_runtime.broker import Broker
from whisperline_runtime.process import StartupError
from whisperline_runtime.producer import DeadLetters
from whisperline_runtime.retry import retrying
from whisperline_runtime.tracing import SpanKind, context_of, extract, tracer

log = logging.getLogger(__name__)
TRACER = tracer(__name__)

# How long a record waits for room in the producer's buffer. A record in the buffer waits for its broker without limit.
_OUTAGE_MS = 60_000
_BATCH_BYTES = MAX_MESSAGE_BYTES // 2
_LINGER_MS = 5
_STOP_S = 3.0


class AudioLog:
    """Appends records to `audio_chunks`, idempotently, acknowledged by all replicas. A process has one.

    A producer that has failed for good (its sequence is broken) is replaced, and `generation` counts the producers.
    Records of one caller that awaits each `append` keep their order as long as `generation` stays the same. When it
    changes, the failed producer may still write what it holds for other partitions for a few seconds, beside the new
    one; records that it has not written by then fail.
    """

    def __init__(self, broker: Broker, *, linger_ms: int = _LINGER_MS) -> None:
        self.generation = 0
        self._broker = broker
        self._linger_ms = linger_ms
        self._producer: AIOKafkaProducer | None = None
        self._replacement: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, broker: Broker, *, linger_ms: int = _LINGER_MS) -> AsyncIterator["AudioLog"]:
        """Connect. Raises `KafkaConnectionError` when no broker answers. At the end, flush for a few seconds."""
        audio_log = cls(broker, linger_ms=linger_ms)
        audio_log._producer = await audio_log._start_producer()
        try:
            yield audio_log
        finally:
            if audio_log._replacement is not None:
                audio_log._replacement.cancel()
                await asyncio.gather(audio_log._replacement, return_exceptions=True)
            await _stop(audio_log._producer)

    async def append(self, chunk: AudioChunk) -> "asyncio.Future[RecordMetadata]":
        """Hand a record over; the future is done when it is durable. Raises `KafkaError`, and so does the future."""
        producer = self._producer
        if producer is None:
            raise KafkaConnectionError("the producer is not running")
        try:
            future: asyncio.Future[RecordMetadata] = await producer.send(
                AUDIO_CHUNKS, chunk.data, key=chunk.session_id.encode(), headers=chunk.headers()
            )
        except KafkaTimeoutError:  # there was no room for the record, and nothing was lost
            raise
        except KafkaError:
            self.replace_producer(producer)
            raise

        def check(done: "asyncio.Future[RecordMetadata]") -> None:
            # A batch that fails leaves a hole in the producer's sequence, which no later batch gets past.
            if not done.cancelled() and done.exception() is not None:
                self.replace_producer(producer)

        future.add_done_callback(check)
        return future

    def replace_producer(self, failed: AIOKafkaProducer | None = None) -> None:
        """Replace the producer, unless `failed` is an earlier producer or a replacement is already under way."""
        current = self._producer
        if current is None or (failed is not None and failed is not current):
            return
        if self._replacement is None or self._replacement.done():
            log.error("the Kafka producer has failed and is replaced")
            self._replacement = asyncio.create_task(self._replace(current), name="replace producer")

    async def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic. Raises `StartupError` if there is no such topic."""
        if self._producer is None:
            raise KafkaConnectionError("the producer is not running")
        cluster = await self._producer.client.fetch_all_metadata()
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            raise StartupError(
                f"Kafka at {self._broker.bootstrap} has no topic {topic}: create Whisperline's topics first"
            )
        return len(partitions)

    async def _start_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._broker.client_options(),
            client_id="whisperline-gateway",
            acks="all",
            enable_idempotence=True,
            linger_ms=self._linger_ms,
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

    async def _replace(self, failed: AIOKafkaProducer) -> None:
        async for attempt in retrying(KafkaError, what="starting a new Kafka producer"):
            with attempt:
                self._producer = await self._start_producer()
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
        """Connect, and find the end of the partition: events from then on are read."""
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
            await consumer.position(partition)  # `seek_to_end` is lazy: only this asks Kafka for the offset
            yield cls(consumer, partition)
        finally:
            await _stop(consumer)

    async def run(self, route: Callable[[Event], None], dead_letters: DeadLetters) -> None:
        """Route every event, for ever. Raises `TooManyDeadLettersError`."""
        async for record in self._consumer:
            try:
                event = decode_event(record.value)
            except UnreadableMessage as error:
                await dead_letters.send(record, error.reason)
                continue
            dead_letters.reset_count(record.partition)
            traceparent = extract(record.headers)
            if traceparent is None:
                route(event)
                continue
            with TRACER.start_as_current_span(
                f"{TRANSCRIPTIONS} process", context_of(traceparent), SpanKind.CONSUMER
            ) as span:
                if span.is_recording():
                    span.set_attributes(
                        {
                            "messaging.system": "kafka",
                            "messaging.destination.name": TRANSCRIPTIONS,
                            "messaging.destination.partition.id": str(record.partition),
                            "messaging.operation.name": "process",
                            "messaging.operation.type": "process",
                            "messaging.kafka.offset": record.offset,
                            "whisperline.session.id": event.session_id,
                            "whisperline.event.type": event.type,
                        }
                    )
                route(event)

    async def is_reachable(self, timeout_s: float) -> bool:
        """Return True if the leader of the partition answers in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._consumer.end_offsets([self._partition])
        except (KafkaError, TimeoutError):
            return False
        return True


async def check_topics(broker: Broker, ordinal: int, timeout_s: float) -> None:
    """Check that Kafka has our topics, and a partition for this gateway. Raises `StartupError`.

    Waits up to `timeout_s` for Kafka to answer, and as long again for its topics. Does not wait if Kafka refuses this
    client or lacks the partition.
    """
    await broker.wait_until_reachable(timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            async for attempt in retrying(KafkaError, what="asking Kafka for its topics"):
                with attempt:
                    async with AudioLog.open(broker) as audio_log:
                        await audio_log.partition_count(AUDIO_CHUNKS)
                        await audio_log.partition_count(TRANSCRIPTIONS_DEAD)
                        partitions = await audio_log.partition_count(TRANSCRIPTIONS)
    except TimeoutError:
        raise StartupError(
            f"Kafka at {broker.bootstrap} did not name its topics within {timeout_s:g} s: check that its brokers are up"
        ) from None
    if ordinal >= partitions:
        raise StartupError(
            f"WHISPERLINE_GATEWAY_ORDINAL is {ordinal}, but {TRANSCRIPTIONS} has {partitions} partitions "
            f"(0 to {partitions - 1}), one for each gateway: raise its partitions, or run fewer gateways"
        )


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> bool:
    try:
        async with asyncio.timeout(_STOP_S):
            await client.stop()
    except (KafkaError, TimeoutError) as error:
        log.warning("a Kafka client did not stop cleanly: %r", error)
        return False
    return True


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Keep a producer that cannot flush from writing more, and fail its records, so that no caller waits for them.

    `stop` does neither: it flushes, however long that takes. aiokafka 0.14 has no public method for this, so this uses
    its private `_sender` and `_message_accumulator`.
    `test_what_a_replaced_producer_cannot_write_fails` notices changes.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(producer._sender.close(), producer.client.close(), return_exceptions=True)
    producer._message_accumulator.fail_all(KafkaTimeoutError())
