"""Write decisions to `session_progress` and read back which ones count. See `whisperline_contracts.progress`."""

import asyncio
import logging
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from whisperline_contracts import Progress, UnreadableMessage, decode_progress, encode_progress
from whisperline_contracts.topics import SESSION_PROGRESS
from whisperline_runtime.broker import Broker
from whisperline_runtime.producer import DurableProducer

log = logging.getLogger(__name__)


class ProgressLog:
    """The progress of every session in the partitions that this process owns.

    `assign` reads those partitions from the beginning and then follows them. Call it again, with all
    partitions, whenever they change. The reader runs in `tasks`: if it fails, it ends the group.
    """

    def __init__(self, broker: Broker, producer: DurableProducer, tasks: asyncio.TaskGroup) -> None:
        self._broker = broker
        self._producer = producer
        self._tasks = tasks
        self._counted: dict[int, dict[str, Progress]] = {}  # by partition and session: the last progress that counts
        self._waiting: dict[tuple[str, int], asyncio.Future[Progress]] = {}  # by session and revision
        self._reader: asyncio.Task[None] | None = None

    def sessions(self, partition: int) -> dict[str, Progress]:
        """Return the last progress that counts of each session in a partition, without those with a tombstone."""
        return self._counted[partition]

    async def assign(self, partitions: Iterable[int]) -> None:
        """Replace the partitions that are followed; return once `partitions` have been read to their end."""
        await self.close()
        self._counted = {partition: {} for partition in partitions}
        if self._counted:
            caught_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._reader = self._tasks.create_task(self._follow(caught_up), name="progress-log")
            await caught_up

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        self._counted = {}

    async def propose(self, partition: int, progress: Progress) -> Progress:
        """Write `progress` and return the record that counts for its revision: this one, or one written before it."""
        before = self._counted[partition].get(progress.session_id)
        if before is not None and before.revision >= progress.revision:
            return before
        slot = (progress.session_id, progress.revision)
        counted = self._waiting.setdefault(slot, asyncio.get_running_loop().create_future())
        try:
            key = progress.session_id.encode()
            await self._producer.write(SESSION_PROGRESS, key, encode_progress(progress), partition=partition)
            return await counted
        finally:
            self._waiting.pop(slot, None)

    async def write_tombstone(self, partition: int, session_id: str) -> None:
        """Write a tombstone: no replay can reach the session any more."""
        await self._producer.write(SESSION_PROGRESS, session_id.encode(), None, partition=partition)

    async def _follow(self, caught_up: "asyncio.Future[None]") -> None:
        consumer = AIOKafkaConsumer(**self._broker.client_options(), enable_auto_commit=False)
        try:
            await consumer.start()
            own = [TopicPartition(SESSION_PROGRESS, partition) for partition in self._counted]
            # Before the first fetch: while a fetch is outstanding, the broker would answer half a second later.
            ends = await consumer.end_offsets(own)
            consumer.assign(own)
            await consumer.seek_to_beginning(*own)
            while True:
                if not caught_up.done():
                    reached = [await consumer.position(partition) >= end for partition, end in ends.items()]
                    if all(reached):
                        caught_up.set_result(None)
                batch = await consumer.getmany(timeout_ms=200)
                for records in batch.values():
                    for record in records:
                        self._append(record)
        except Exception as error:
            if not caught_up.done():
                caught_up.set_exception(error)
            raise
        finally:
            caught_up.cancel()
            await consumer.stop()

    def _append(self, record: ConsumerRecord) -> None:
        counted = self._counted[record.partition]
        session_id = (record.key or b"").decode(errors="replace")
        if record.value is None:
            counted.pop(session_id, None)
            return
        try:
            progress = decode_progress(record.value)
        except UnreadableMessage as error:
            log.error("skipping the progress at %d@%d: %s", record.partition, record.offset, error)
            return
        if progress.follows(counted.get(session_id)):
            counted[session_id] = progress
            waiting = self._waiting.get((progress.session_id, progress.revision))
            if waiting is not None and not waiting.done():
                waiting.set_result(progress)
