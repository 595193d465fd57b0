"""Write to Kafka until the record is durable, and put records that cannot be used aside."""

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
    """Return True if waiting may cure `error`. A time-out means that the producer had no room for the record."""
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError))


class DurableProducer:
    """An idempotent producer, with acknowledgements of all replicas, that does not give up."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Self:
        """Connect, however long that takes."""
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
        """Write a record, however long the brokers are away. It may be written twice, with the same content.

        Raises the `KafkaError`s that waiting does not cure. What the producer has accepted it sends until it is
        answered; a record for which it has no room, because a broker has been away for long, is tried again.
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
        """Hand a record over and return a future that is done when it is durable. Raises `KafkaError`."""
        future: asyncio.Future[Any] = await self._producer.send(
            topic, value, key=key, partition=partition, headers=list(headers)
        )
        return future

    async def partitions(self, topic: str) -> set[int]:
        """Ask Kafka for a topic's partitions; the producer writes to all of them from then on."""
        await self._producer.client.force_metadata_update()
        found: set[int] = await self._producer.partitions_for(topic)
        return found


class DeadLetters:
    """The dead-letter policy: records that cannot be used go to `topic`, and too many in a row stop the process.

    `limit` counts by partition: a bad release must not drain the log into the dead letters. `consumer` is the group
    that could not use the records, `counter` the metric `whisperline_<process>_dead_letters_total`.
    """

    def __init__(self, producer: DurableProducer, topic: str, *, consumer: str, limit: int, counter: Counter) -> None:
        self._producer = producer
        self._topic = topic
        self._consumer = consumer
        self._limit = limit
        self._counter = counter
        self._in_a_row: CountByKey[int] = CountByKey()

    def count(self, record: ConsumerRecord, reason: str) -> None:
        """Note a record that cannot be used. Raises `TooManyDeadLettersError` at the limit: do not commit it then."""
        self._in_a_row[record.partition] += 1
        if self._in_a_row[record.partition] >= self._limit:
            raise TooManyDeadLettersError(
                f"{self._limit} records in a row cannot be used, the last is {record.topic}[{record.partition}] offset "
                f"{record.offset}: {reason}. Either their producer or this process has a release that does not fit: "
                "deploy one that does, then start this process again."
            )

    def readable(self, partition: int) -> None:
        """Note a record that could be used."""
        self._in_a_row[partition] = 0

    async def write(self, record: ConsumerRecord, reason: str) -> None:
        """Copy a record to the dead letters; return once the copy is durable."""
        letter = DeadLetter(reason, record.topic, record.partition, record.offset, self._consumer)
        headers = letter.headers(tuple((name, value or b"") for name, value in record.headers))
        # The producer takes no record that has neither key nor value.
        key = b"" if record.key is None and record.value is None else record.key
        try:
            await self._producer.write(self._topic, key, record.value, headers=headers)
        except MessageSizeTooLargeError:
            # There is no room for the reason beside the record, which stays where the letter points to.
            await self._producer.write(self._topic, b"", None, headers=letter.headers(()))
        self._counter.inc()
        log.error("dead letter: %s[%d] offset %d: %s", record.topic, record.partition, record.offset, reason)

    async def send(self, record: ConsumerRecord, reason: str) -> None:
        """Count a record and copy it to the dead letters. Raises `TooManyDeadLettersError` without copying it."""
        self.count(record, reason)
        await self.write(record, reason)
