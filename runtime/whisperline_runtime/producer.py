"""Write records to Kafka until they are durable, and copy unusable records to the dead letters."""

import asyncio
import logging
from collections import Counter as CountByKey
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from prometheus_client import Counter
from whisperline_contracts import DeadLetter
from whisperline_contracts.topics import MAX_MESSAGE_BYTES

from whisperline_runtime.broker import Broker, start_client
from whisperline_runtime.errors import TooManyDeadLettersError
from whisperline_runtime.retry import retrying

__all__ = ["DeadLetters", "DurableProducer", "TooManyDeadLettersError", "is_retriable"]

log = logging.getLogger(__name__)


def is_retriable(error: Exception) -> bool:
    """Return True if waiting may fix `error`. A timeout means that the producer's buffer had no room for the record."""
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError))


class DurableProducer:
    """An idempotent producer that waits for all in-sync replicas and never gives up."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Self:
        """Connect to Kafka; wait for it as long as it takes."""
        self._producer = await start_client(
            lambda: AIOKafkaProducer(
                **self._broker.client_options(),
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                max_request_size=MAX_MESSAGE_BYTES,
                request_timeout_ms=30_000,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """Write a record; wait as long as the brokers are unavailable. It may be written twice, with the same content.

        Raises the `KafkaError`s that waiting does not fix. The producer itself resends a record that it has accepted
        until a broker acknowledges it. If its buffer is full because a broker is unavailable, this method retries.
        """
        async for attempt in retrying(is_retriable, what=f"writing to {topic}"):
            with attempt:
                await self._producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> "asyncio.Future[Any]":
        """Hand a record to the producer; return a future that is done once it is durable. Raises `KafkaError`."""
        future: asyncio.Future[Any] = await self._producer.send(
            topic, value, key=key, partition=partition, headers=list(headers)
        )
        return future

    async def partitions(self, topic: str) -> set[int]:
        """Return a topic's partitions as Kafka has them now. The producer can write to new ones from then on."""
        await self._producer.client.force_metadata_update()
        found: set[int] = await self._producer.partitions_for(topic)
        return found


class DeadLetters:
    """The dead-letter policy: records that cannot be used go to `topic`, and too many in a row stop the process.

    `limit` applies to each partition, so that a bad release does not drain the log into the dead letters. `consumer`
    is the group that could not use the records, `counter` the metric `whisperline_<process>_dead_letters_total`.
    """

    def __init__(self, producer: DurableProducer, topic: str, *, consumer: str, limit: int, counter: Counter) -> None:
        self._producer = producer
        self._topic = topic
        self._consumer = consumer
        self._limit = limit
        self._counter = counter
        self._in_a_row: CountByKey[int] = CountByKey()

    def count_unusable(self, record: ConsumerRecord, reason: str) -> None:
        """Count an unusable record. Raises `TooManyDeadLettersError` at the limit: then do not commit the record."""
        self._in_a_row[record.partition] += 1
        if self._in_a_row[record.partition] >= self._limit:
            raise TooManyDeadLettersError(
                f"{self._limit} records in a row cannot be used, the last is {record.topic}[{record.partition}] offset "
                f"{record.offset}: {reason}. Either their producer or this process has a release that does not fit: "
                "deploy one that does, then start this process again."
            )

    def reset_count(self, partition: int) -> None:
        """Reset the partition's count, because a record could be used."""
        self._in_a_row[partition] = 0

    async def write(self, record: ConsumerRecord, reason: str) -> None:
        """Copy a record to the dead letters; return once the copy is durable."""
        letter = DeadLetter(reason, record.topic, record.partition, record.offset, self._consumer)
        headers = letter.headers(tuple((name, value or b"") for name, value in record.headers))
        # The producer rejects a record that has neither key nor value.
        key = b"" if record.key is None and record.value is None else record.key
        try:
            await self._producer.write(self._topic, key, record.value, headers=headers)
        except MessageSizeTooLargeError:
            # The record leaves no room for the reason: send only headers, which point to the record in its topic.
            await self._producer.write(self._topic, b"", None, headers=letter.headers(()))
        self._counter.inc()
        log.error("dead letter: %s[%d] offset %d: %s", record.topic, record.partition, record.offset, reason)

    async def send(self, record: ConsumerRecord, reason: str) -> None:
        """Count a record and copy it to the dead letters. At the limit, raises `TooManyDeadLettersError` instead."""
        self.count_unusable(record, reason)
        await self.write(record, reason)
