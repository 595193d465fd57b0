"""The process: follows its partitions of `audio_chunks`, feeds voice activity, commits the low watermark."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from whisperline_contracts import AudioChunk, UnreadableMessage
from whisperline_contracts.topics import AUDIO_CHUNKS, TRANSCRIPTIONS

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.admission import Decoder
from whisperline_transcriber.decoding.triton import Triton
from whisperline_transcriber.log.backpressure import crowded
from whisperline_transcriber.log.partition import Live, Partition, Services, Superseded
from whisperline_transcriber.log.progress import ProgressLog
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import SAMPLE_RATE, Samples
from whisperline_transcriber.stream.vad import VoiceActivity

log = logging.getLogger(__name__)

REBALANCE_MS = 30_000  # as equal to the session timeout, which is the default, handovers repeat
POLL_MS = 50  # how long a poll waits for records
POLL_RECORDS = 500
VAD_BATCH = 256  # sessions in one voice-activity call
VAD_ROUNDS = 64  # calls before new records are looked at: 2 s of audio of every session
CAUGHT_UP_S = 5.0  # a partition whose last record is younger than this is not behind


class TooManyDeadLetters(Exception):
    """So many records in a row cannot be read that this release, and not the records, must be at fault."""


class Transcriber(ConsumerRebalanceListener):  # type: ignore[misc]
    """One transcriber process. `run` returns after `stop` is set, or raises what it cannot recover from."""

    def __init__(self, settings: Settings, owner: str) -> None:
        self._settings = settings
        self._owner = owner
        self._vad = VoiceActivity(settings.vad_model, settings.vad_noise)
        self._partitions: dict[int, Partition] = {}
        self._stirred: dict[str, tuple[Partition, Live]] = {}
        self._superseded: set[int] = set()
        self._fatal: BaseException | None = None
        self._lock = asyncio.Lock()  # partitions change hands only between batches
        self._committed: dict[int, int] = {}
        self._read_ms: dict[int, int] = {}  # timestamp of the last record of each partition
        self._told_ms: dict[int, int] = {}  # when Kafka last said what each partition holds
        self._unreadable: Counter[int] = Counter()  # records in a row, by partition
        self.ready = False

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log until `stop` is set; then finish what is closed, commit, and leave the rest to others."""
        settings = self._settings
        await settings.broker.reach()
        async with AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(Publisher(settings.broker))
            asked = Triton(settings.triton_url, settings.model, settings.rollout_keep_s)
            triton = await stack.enter_async_context(asked)
            progress = ProgressLog(settings.broker, publisher)
            stack.push_async_callback(progress.close)
            self._services = Services(settings, publisher, progress, Decoder(triton, settings), self._owner)
            self._reply_partitions = await publisher.partitions(TRANSCRIPTIONS)
            self._consumer = self._make_consumer()
            stack.push_async_callback(self._consumer.stop)
            await self._consumer.start()
            await self._follow(stop)
            await self._drain()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - all are
        """Hand over: what is decided is in the log, what is not the next owner does again from the watermark."""
        self.ready = False
        async with self._lock:
            await self._commit()
            await self._close_partitions()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over: read the progress, restore the sessions, and go on from the watermark."""
        async with self._lock:
            await self._close_partitions()
            try:
                await self._services.progress.assign(at.partition for at in assigned)
                await self._open({at: await self._consumer.committed(at) or 0 for at in sorted(assigned)})
            except Exception as error:  # the consumer would only log it
                self._fatal = error
            self.ready = True

    def _make_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        consumer = AIOKafkaConsumer(
            **settings.broker.client_options(),
            group_id=settings.group,
            group_instance_id=settings.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.session_timeout_ms // 5,
            rebalance_timeout_ms=REBALANCE_MS,
        )
        consumer.subscribe([AUDIO_CHUNKS], listener=self)
        return consumer

    async def _open(self, positions: dict[TopicPartition, int]) -> None:
        bounds = await self._bounds(list(positions))
        for at, position in positions.items():
            beginning, end = bounds[at]
            partition = Partition(at.partition, max(position, beginning), self._services, self._task_failed)
            self._partitions[at.partition] = partition
            await partition.restore(end)
            self._consumer.seek(at, partition.watermark.position)
            log.info("partition %d: from %d to %d, %d sessions", at.partition, position, end, len(partition.live))

    async def _bounds(self, partitions: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return where partitions begin and end. A consumer that fetches would be told half a second later."""
        asking = AIOKafkaConsumer(**self._settings.broker.client_options())
        await asking.start()
        try:
            beginnings, ends = await asking.beginning_offsets(partitions), await asking.end_offsets(partitions)
        finally:
            await asking.stop()
        return {at: (beginnings[at], ends[at]) for at in partitions}

    async def _close_partitions(self) -> None:
        partitions, self._partitions = self._partitions, {}
        self._stirred.clear()
        self._committed.clear()
        self._superseded.clear()
        self._read_ms.clear()
        self._told_ms.clear()
        for lag in (metrics.LAG, metrics.LAG_AGE):  # of partitions that others may have from now on
            lag.clear()
        for partition in partitions.values():
            await partition.close()

    async def _follow(self, stop: asyncio.Event) -> None:
        due_s = time.monotonic()
        while not stop.is_set():
            self._raise_failures()
            batch = await self._consumer.getmany(timeout_ms=0 if self._stirred else POLL_MS, max_records=POLL_RECORDS)
            async with self._lock:
                for at, records in batch.items():
                    await self._read(at.partition, records)
                await self._listen()
                await self._retake()
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + self._settings.commit_interval_s
                    await self._housekeeping()

    async def _read(self, number: int, records: list[ConsumerRecord]) -> None:
        partition = self._partitions.get(number)
        if partition is None:
            return  # fetched before the partition was revoked; its next owner reads them again
        for record in records:
            chunk = await self._chunk(record)
            partition.watermark.read(record.offset)
            self._read_ms[number] = record.timestamp
            live = await partition.receive(chunk, record) if chunk else None
            if live is not None:
                self._stirred[live.session.id] = (partition, live)

    async def _chunk(self, record: ConsumerRecord) -> AudioChunk | None:
        try:
            chunk = AudioChunk.from_record(record.headers, record.value)
            if not await self._can_reply(chunk.reply_partition):
                raise UnreadableMessage(f"{TRANSCRIPTIONS} has no partition {chunk.reply_partition} to reply to")
        except UnreadableMessage as error:
            await self._unreadable_record(record, error)
            return None
        self._unreadable[record.partition] = 0
        return chunk

    async def _can_reply(self, partition: int) -> bool:
        if partition not in self._reply_partitions:  # one that was added while we run?
            self._reply_partitions = await self._services.publisher.partitions(TRANSCRIPTIONS)
        return partition in self._reply_partitions

    async def _unreadable_record(self, record: ConsumerRecord, error: UnreadableMessage) -> None:
        self._unreadable[record.partition] += 1
        count = self._unreadable[record.partition]
        if count >= self._settings.dead_letters_in_a_row:
            raise TooManyDeadLetters(f"{count} records in a row cannot be read, the last: {error.reason}")
        await self._services.publisher.dead_letter(record, error.reason, self._settings.group)

    async def _listen(self) -> None:
        """Feed the frames that are there to the voice-activity model, one of each session in a call."""
        for _ in range(VAD_ROUNDS):
            rows = [
                (*held, frame) for held in list(self._stirred.values()) if (frame := self._frame(*held)) is not None
            ]
            if not rows:
                return
            for first in range(0, len(rows), VAD_BATCH):
                batch = rows[first : first + VAD_BATCH]
                heard = self._vad([row[2] for row in batch], [row[1].session.voice for row in batch])
                metrics.VAD_BATCH.observe(len(batch))
                for (partition, live, frame), (probability, state) in zip(batch, heard, strict=True):
                    live.session.heard(frame, probability, state)
                    self._act(partition, live)
            await asyncio.sleep(0)

    def _frame(self, partition: Partition, live: Live) -> Samples | None:
        frame = live.session.frame()
        if frame is None:
            del self._stirred[live.session.id]
            self._act(partition, live)
        return frame

    @staticmethod
    def _act(partition: Partition, live: Live) -> None:
        if live.session.steps:
            live.stirred.set()
        partition.speech_started(live)
        partition.partial(live)

    async def _retake(self) -> None:
        """Take partitions up anew in which another process had decided first."""
        for number in list(self._superseded):
            self._superseded.discard(number)
            partition = self._partitions.pop(number, None)
            if partition is None:
                continue
            position = partition.watermark.low()
            self._stirred = {key: held for key, held in self._stirred.items() if held[0] is not partition}
            await partition.close()
            await self._open({TopicPartition(AUDIO_CHUNKS, number): position})

    async def _housekeeping(self) -> None:
        await self._commit()
        sessions = [live.session for partition in self._partitions.values() for live in partition.live.values()]
        buffered_s = sum(session.buffered_samples for session in sessions) / SAMPLE_RATE
        metrics.SESSIONS.set(len(sessions))
        metrics.BUFFERED.set(buffered_s)
        self._throttle()
        for number, partition in self._partitions.items():
            await partition.bury(self._committed.get(number, 0), time.monotonic())
            behind_s = self._lag_s(number)
            if not self._followed(number):
                partition.not_read(time.monotonic())
            elif behind_s < CAUGHT_UP_S:
                await partition.end_idle(time.monotonic())

    def _throttle(self) -> None:
        """Read on where there is room for it."""
        backlog_s = {number: partition.backlog_s for number, partition in self._partitions.items()}
        metrics.BACKLOG.set(sum(backlog_s.values()))
        wait = {TopicPartition(AUDIO_CHUNKS, number) for number in crowded(backlog_s, self._settings.max_buffered_s)}
        own = {TopicPartition(AUDIO_CHUNKS, number) for number in backlog_s} & self._consumer.assignment()
        self._consumer.pause(*(own & wait))
        self._consumer.resume(*(own & self._consumer.paused() - wait))

    def _followed(self, number: int) -> bool:
        """Whether Kafka has said all along what the partition holds: not while it is away, or the partition waits."""
        at = TopicPartition(AUDIO_CHUNKS, number)
        told_ms = self._consumer.last_poll_timestamp(at) if at in self._consumer.assignment() else None
        before_ms, self._told_ms[number] = self._told_ms.get(number, 0), told_ms or 0
        gaps_ms = (time.time() * 1000 - self._told_ms[number], self._told_ms[number] - before_ms)
        return max(gaps_ms) < CAUGHT_UP_S * 1000

    def _lag_s(self, number: int) -> float:
        at = TopicPartition(AUDIO_CHUNKS, number)
        end = self._consumer.highwater(at) if at in self._consumer.assignment() else None
        behind = max(0, (end or 0) - self._partitions[number].watermark.position)
        age_s = max(0.0, time.time() - self._read_ms.get(number, 0) / 1000) if behind else 0.0
        metrics.LAG.labels(str(number)).set(behind)
        metrics.LAG_AGE.labels(str(number)).set(age_s if number in self._read_ms else 0.0)
        return age_s

    async def _commit(self) -> None:
        low = {number: partition.watermark.low() for number, partition in self._partitions.items()}
        changed = {number: offset for number, offset in low.items() if self._committed.get(number) != offset}
        if not changed:
            return
        try:
            offsets = {TopicPartition(AUDIO_CHUNKS, number): offset for number, offset in changed.items()}
            await self._consumer.commit(offsets)
        except KafkaError as error:  # a rebalance is under way, or the broker is away: the next commit covers it
            log.warning("commit failed: %s", error)
            return
        self._committed.update(changed)

    async def _drain(self) -> None:
        """Let closed segments become finals, as long as the deadline allows."""
        deadline_s = time.monotonic() + self._settings.drain_deadline_s
        while any(partition.busy for partition in self._partitions.values()) and time.monotonic() < deadline_s:
            self._raise_failures()
            await asyncio.sleep(POLL_MS / 1000)
        async with self._lock:
            await self._commit()
            await self._close_partitions()

    def _task_failed(self, number: int, error: BaseException) -> None:
        if isinstance(error, Superseded):
            log.warning("partition %d is taken up anew: %s", number, error)
            self._superseded.add(number)
        else:
            self._fatal = error

    def _raise_failures(self) -> None:
        self._services.progress.check()
        if self._fatal is not None:
            raise self._fatal
