"""The log that decides: `session_progress`, written and read back. See `whisperline_contracts.progress`."""

import asyncio
import logging
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from whisperline_contracts import Progress, UnreadableMessage, decode_progress, encode_progress
from whisperline_contracts.broker import Broker
from whisperline_contracts.topics import SESSION_PROGRESS

from whisperline_transcriber.log.publisher import Publisher

log = logging.getLogger(__name__)


class ProgressLog:
    """The progress of every session in the partitions that this process owns.

    `assign` reads those partitions from their beginning and follows them from then on. It must be called again,
    with all partitions, whenever they change. A reader that fails makes `check` raise.
    """

    def __init__(self, broker: Broker, publisher: Publisher) -> None:
        self._broker = broker
        self._publisher = publisher
        self._counted: dict[int, dict[str, Progress]] = {}
        self._waiting: dict[tuple[str, int], asyncio.Future[Progress]] = {}
        self._reader: asyncio.Task[None] | None = None

    def sessions(self, partition: int) -> dict[str, Progress]:
        """Return what counts in a partition, by session; those that were tombstoned are gone."""
        return self._counted[partition]

    async def assign(self, partitions: Iterable[int]) -> None:
        """Forget what was followed before; return once `partitions` have been read to their end."""
        await self.close()
        self._counted = {partition: {} for partition in partitions}
        if not self._counted:
            return
        caught_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._follow(caught_up), name="progress-log")
        await asyncio.wait({caught_up, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        if self._reader.done():
            self._reader.result()

    async def close(self) -> None:
        """Stop following."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        self._counted = {}

    def check(self) -> None:
        """Raise what made the reader fail, if it failed."""
        if self._reader is not None and self._reader.done() and not self._reader.cancelled():
            self._reader.result()

    async def propose(self, partition: int, progress: Progress) -> Progress:
        """Write `progress` and return the record that counts for its revision: this one, or another's before it."""
        before = self._counted[partition].get(progress.session_id)
        if before is not None and before.revision >= progress.revision:
            return before
        slot = (progress.session_id, progress.revision)
        future = self._waiting.setdefault(slot, asyncio.get_running_loop().create_future())
        try:
            value = encode_progress(progress)
            await self._publisher.durably(SESSION_PROGRESS, progress.session_id.encode(), value, partition=partition)
            return await future
        finally:
            self._waiting.pop(slot, None)

    async def bury(self, partition: int, session_id: str) -> None:
        """Write a tombstone: no replay can reach the session any more."""
        await self._publisher.durably(SESSION_PROGRESS, session_id.encode(), None, partition=partition)

    async def _follow(self, caught_up: "asyncio.Future[None]") -> None:
        consumer = AIOKafkaConsumer(**self._broker.client_options(), enable_auto_commit=False)
        await consumer.start()
        try:
            own = [TopicPartition(SESSION_PROGRESS, partition) for partition in self._counted]
            ends = await consumer.end_offsets(own)  # first: behind a fetch, the broker would answer half a second later
            consumer.assign(own)
            await consumer.seek_to_beginning(*own)
            while True:
                if not caught_up.done() and await _reached(consumer, ends):
                    caught_up.set_result(None)
                batch = await consumer.getmany(timeout_ms=200)
                for records in batch.values():
                    for record in records:
                        self._take(record)
        finally:
            await consumer.stop()

    def _take(self, record: ConsumerRecord) -> None:
        counted = self._counted[record.partition]
        session_id = (record.key or b"").decode(errors="replace")
        if record.value is None:
            counted.pop(session_id, None)
            return
        try:
            progress = decode_progress(record.value)
        except UnreadableMessage as error:
            log.error("progress at %d@%d is passed over: %s", record.partition, record.offset, error)
            return
        if progress.follows(counted.get(session_id)):
            counted[session_id] = progress
            self._answer(progress)

    def _answer(self, progress: Progress) -> None:
        future = self._waiting.get((progress.session_id, progress.revision))
        if future is not None and not future.done():
            future.set_result(progress)


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(partition) >= end for partition, end in ends.items()])
