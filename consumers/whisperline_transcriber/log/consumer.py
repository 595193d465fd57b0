"""Follow the process's partitions of `audio_chunks`: assign, read, commit, pause, hand over."""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from whisperline_contracts import AudioChunk, UnreadableMessage
from whisperline_contracts.topics import AUDIO_CHUNKS, TRANSCRIPTIONS
from whisperline_runtime.broker import Broker
from whisperline_runtime.process import Stop
from whisperline_runtime.producer import DeadLetters

from whisperline_transcriber import metrics
from whisperline_transcriber.log.backpressure import partitions_to_pause
from whisperline_transcriber.log.partition import Partition
from whisperline_transcriber.log.session_task import Services
from whisperline_transcriber.settings import Settings

log = logging.getLogger(__name__)

# Must exceed the session timeout. With aiokafka's default, which equals it, a slow handover triggers another rebalance.
REBALANCE_MS = 30_000
POLL_MS = 50  # how long a poll waits for records
POLL_RECORDS = 500

Bounds = dict[TopicPartition, tuple[int, int]]


def kafka_consumer(settings: Settings) -> AIOKafkaConsumer:
    """Return the consumer that a `LogConsumer` drives; it is not started yet."""
    return AIOKafkaConsumer(
        **settings.broker.client_options(),
        client_id="transcriber",
        group_id=settings.group,
        group_instance_id=settings.instance_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 5,
        rebalance_timeout_ms=REBALANCE_MS,
    )


async def read_bounds(broker: Broker, partitions: list[TopicPartition]) -> Bounds:
    """Return the first offset and the end offset of each partition.

    This uses a consumer of its own: on a connection with an outstanding fetch, the broker answers half a second later.
    """
    asking = AIOKafkaConsumer(**broker.client_options())
    await asking.start()
    try:
        beginnings, ends = await asking.beginning_offsets(partitions), await asking.end_offsets(partitions)
    finally:
        await asking.stop()
    return {at: (beginnings[at], ends[at]) for at in partitions}


class LogConsumer(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """Reads the partitions that Kafka assigns to this process; `partitions` are those it owns now.

    All work of the process runs in the group `tasks`: a task that fails there ends the process.
    """

    def __init__(
        self, kafka: AIOKafkaConsumer, services: Services, dead_letters: DeadLetters, tasks: asyncio.TaskGroup
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.why_not_ready: str | None = "no partitions are assigned yet"
        self._kafka = kafka
        self._services = services
        self._settings = services.settings
        self._dead_letters = dead_letters
        self._tasks = tasks
        self._lock = asyncio.Lock()  # partitions change hands only between batches

    async def run(self, stop: Stop) -> None:
        """Follow the log until `stop` is set; then let closed segments become finals, commit, and leave the group."""
        hearing = self._tasks.create_task(self._services.vad.serve())
        try:
            self._kafka.subscribe([AUDIO_CHUNKS], listener=self)
            await self._kafka.start()
            due_s = time.monotonic()
            while not stop.is_set():
                batch = await self._kafka.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                async with self._lock:
                    for at, records in batch.items():
                        # Skip records that were fetched before their partition was revoked: its next owner reads them.
                        if at.partition in self.partitions:
                            await self._read(self.partitions[at.partition], records)
                    await self._reload_lost_races()
                    if time.monotonic() >= due_s:
                        due_s = time.monotonic() + self._settings.commit_interval_s
                        await self.housekeep()

            hearing.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_deadline_s):
                    while any(partition.is_busy for partition in self.partitions.values()):  # noqa: ASYNC110 - many tasks
                        await asyncio.sleep(POLL_MS / 1000)
            async with self._lock:
                await self._commit()
                await self._stop_partitions()
        finally:
            hearing.cancel()
            await self._kafka.stop()
            await self._services.progress.close()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - all are
        """Hand over: commit, and stop. The next owner replays from the watermark and decides what is undecided."""
        self.why_not_ready = "partitions are changing hands"
        async with self._lock:
            await self._commit()
            await self._stop_partitions()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over: read the progress, restore the sessions, and go on from the watermark."""
        # Run in a task of the group, so that a failure ends the process: aiokafka would only log it.
        await self._tasks.create_task(self._take_over(sorted(assigned)))

    async def housekeep(self) -> None:
        """Commit, pause and resume, update metrics, end idle sessions, write tombstones. Runs about once a second."""
        await self._commit()

        untranscribed_s = {number: partition.untranscribed_s for number, partition in self.partitions.items()}
        pause = {
            TopicPartition(AUDIO_CHUNKS, number)
            for number in partitions_to_pause(untranscribed_s, self._settings.max_buffered_s)
        }
        own = {TopicPartition(AUDIO_CHUNKS, number) for number in untranscribed_s} & self._kafka.assignment()
        self._kafka.pause(*(own & pause))
        self._kafka.resume(*(own & self._kafka.paused() - pause))

        metrics.UNTRANSCRIBED_AUDIO.set(sum(untranscribed_s.values()))
        metrics.SESSIONS.set(sum(len(partition.sessions) for partition in self.partitions.values()))
        metrics.BUFFERED_AUDIO.set(sum(partition.buffered_s for partition in self.partitions.values()))
        now_s = time.monotonic()
        for number, partition in self.partitions.items():
            at = TopicPartition(AUDIO_CHUNKS, number)
            is_assigned = at in self._kafka.assignment()  # not while a rebalance is under way
            polled_ms = self._kafka.last_poll_timestamp(at) if is_assigned else None
            partition.note_poll(int(polled_ms or 0), int(time.time() * 1000))
            lag = partition.lag((self._kafka.highwater(at) if is_assigned else None) or 0, time.time())
            metrics.LAG_RECORDS.labels(str(number)).set(lag.records)
            metrics.LAG_SECONDS.labels(str(number)).set(lag.age_s or 0.0)
            await partition.write_tombstones(now_s)
            if not partition.is_followed:
                partition.restart_idle_time(now_s)
            elif lag.is_caught_up:
                await partition.end_idle_sessions(now_s)

    async def _take_over(self, assigned: list[TopicPartition]) -> None:
        async with self._lock:
            await self._stop_partitions()
            await self._services.progress.assign(at.partition for at in assigned)
            await self._open({at: await self._kafka.committed(at) or 0 for at in assigned})
        self.why_not_ready = None

    async def _open(self, offsets: dict[TopicPartition, int]) -> None:
        bounds = await read_bounds(self._settings.broker, list(offsets))
        for at, offset in offsets.items():
            beginning, end = bounds[at]
            partition = Partition(at.partition, max(offset, beginning), self._services, self._tasks)
            self.partitions[at.partition] = partition
            await partition.restore(end)
            self._kafka.seek(at, partition.watermark.next_offset)
            log.info("partition %d: from %d to %d, %d sessions", at.partition, offset, end, len(partition.sessions))

    async def _read(self, partition: Partition, records: list[ConsumerRecord]) -> None:
        for record in records:
            try:
                chunk = AudioChunk.from_record(record.headers, record.value)
                if not await self._services.publisher.has_reply_partition(chunk.reply_partition):
                    raise UnreadableMessage(f"{TRANSCRIPTIONS} has no partition {chunk.reply_partition} to reply to")
            except UnreadableMessage as error:
                await self._dead_letters.send(record, error.reason)
                partition.note_read(record)
                continue
            self._dead_letters.reset_count(record.partition)
            partition.note_read(record)
            await partition.append_record(chunk, record)

    async def _reload_lost_races(self) -> None:
        """Reload from the log each partition in which another process decided first."""
        for number, partition in list(self.partitions.items()):
            if partition.lost_race is not None:
                log.warning("reloading partition %d: %s", number, partition.lost_race)
                del self.partitions[number]
                await partition.stop()
                await self._open({TopicPartition(AUDIO_CHUNKS, number): partition.watermark.low()})

    async def _stop_partitions(self) -> None:
        partitions, self.partitions = self.partitions, {}
        for gauge in (metrics.LAG_RECORDS, metrics.LAG_SECONDS):  # other processes report the lag from now on
            gauge.clear()
        for partition in partitions.values():
            await partition.stop()

    async def _commit(self) -> None:
        low = {number: partition.watermark.low() for number, partition in self.partitions.items()}
        changed = {number: offset for number, offset in low.items() if self.partitions[number].committed != offset}
        if not changed:
            return
        try:
            await self._kafka.commit({TopicPartition(AUDIO_CHUNKS, number): low for number, low in changed.items()})
        except KafkaError as error:  # a rebalance is under way, or the broker is away: the next commit covers it
            log.warning("commit failed: %s", error)
            return
        for number, offset in changed.items():
            self.partitions[number].committed = offset
