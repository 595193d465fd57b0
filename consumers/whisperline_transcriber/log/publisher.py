"""What the transcriber writes to Kafka: events, dead letters, its own END records."""

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from whisperline_contracts import AudioChunk, DeadLetter, Event, encode_event
from whisperline_contracts.broker import Broker
from whisperline_contracts.topics import AUDIO_CHUNKS, AUDIO_CHUNKS_DEAD, MAX_MESSAGE_BYTES, TRANSCRIPTIONS

from whisperline_transcriber import metrics
from whisperline_transcriber.backoff import delays_s

log = logging.getLogger(__name__)

MAX_LIVELY = 2_000  # events that nobody waits for; when so many are under way, further ones are dropped


class Publisher:
    """An idempotent producer that does not give up: what it returned from is durable."""

    def __init__(self, broker: Broker) -> None:
        self._producer = AIOKafkaProducer(
            **broker.client_options(),
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=30_000,
        )
        self._lively: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def event(self, event: Event, reply_partition: int) -> None:
        """Publish an event; return once it is durable."""
        await self.durably(TRANSCRIPTIONS, event.session_id.encode(), encode_event(event), partition=reply_partition)
        metrics.EVENTS.labels(event.type).inc()

    async def event_soon(self, event: Event, reply_partition: int) -> None:
        """Publish an event that may be lost: it only keeps the text lively."""
        if len(self._lively) >= MAX_LIVELY:
            metrics.SHED.labels("kafka").inc()
            return
        key, value = event.session_id.encode(), encode_event(event)
        try:
            future = await self._producer.send(TRANSCRIPTIONS, value, key=key, partition=reply_partition)
        except KafkaError:  # no room for it: its partition has been away for long
            metrics.SHED.labels("kafka").inc()
            return
        self._lively.add(future)
        future.add_done_callback(self._told)
        metrics.EVENTS.labels(event.type).inc()

    async def audio(self, chunk: AudioChunk, partition: int) -> None:
        """Append a record to a session's audio."""
        key = chunk.session_id.encode()
        await self.durably(AUDIO_CHUNKS, key, chunk.data or b"", partition=partition, headers=chunk.headers())

    async def dead_letter(self, record: ConsumerRecord, reason: str, group: str) -> None:
        """Copy a record that cannot be read to the dead letters; return once it is durable there."""
        letter = DeadLetter(reason, record.topic, record.partition, record.offset, group)
        headers, key = letter.headers(tuple(record.headers)), record.key
        if key is None and record.value is None:
            key = b""  # the producer takes no record without either
        try:
            await self.durably(AUDIO_CHUNKS_DEAD, key, record.value, headers=headers)
        except MessageSizeTooLargeError:  # no room for the reason beside it: the record stays where the letter points
            await self.durably(AUDIO_CHUNKS_DEAD, b"", None, headers=letter.headers(()))
        metrics.DEAD_LETTERS.inc()
        log.error("dead letter: %s[%d]@%d: %s", record.topic, record.partition, record.offset, reason)

    async def partitions(self, topic: str) -> set[int]:
        """Ask Kafka which partitions a topic has; the producer writes to all of them from then on."""
        await self._producer.client.force_metadata_update()
        found: set[int] = await self._producer.partitions_for(topic)
        return found

    async def durably(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Write a record, however long the brokers are away. It may be written twice, with the same content.

        Raises the `KafkaError`s that waiting does not cure. What the producer has taken it sends until it is answered;
        what it has no room for, because a broker has been away for long, ends in a time-out and is tried again.
        """
        for delay_s in delays_s():
            try:
                await self._producer.send_and_wait(topic, value, key=key, partition=partition, headers=headers)
                return
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                log.warning("writing to %s failed (%r); trying again", topic, error)
                await asyncio.sleep(delay_s)

    def _told(self, future: "asyncio.Future[Any]") -> None:
        self._lively.discard(future)
        if not future.cancelled() and future.exception() is not None:
            metrics.SHED.labels("kafka").inc()
