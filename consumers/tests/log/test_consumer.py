"""The consumer takes over, reads, pauses, commits and hands over its partitions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from in_memory import LIMIT_S, SECOND, World, Writer, loud, record_of, silent
from prometheus_client import REGISTRY
from whisperline_contracts import AudioChunk, AudioKind, Final, Progress, SessionStart
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_runtime.process import Stop
from whisperline_runtime.producer import DeadLetters, TooManyDeadLettersError
from whisperline_transcriber.log import consumer as module
from whisperline_transcriber.log.consumer import LogConsumer
from whisperline_transcriber.settings import Settings

AT = TopicPartition(AUDIO_CHUNKS, 0)


class Kafka:
    """A stand-in for the part of aiokafka's consumer that we use. It owns partition 0 and has caught up with it."""

    def __init__(self) -> None:
        self.answered_s = time.time()
        self.batches: list[list[ConsumerRecord]] = []
        self.end = 0
        self.was_paused: set[TopicPartition] = set()
        self.commits: list[Mapping[TopicPartition, int]] = []
        self.seeks: list[int] = []
        self.is_stopped = False

    def subscribe(self, *_: object, **__: object) -> None:
        return

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        self.is_stopped = True

    async def getmany(self, timeout_ms: int, **_: object) -> dict[TopicPartition, list[ConsumerRecord]]:
        await asyncio.sleep(0)
        return {AT: self.batches.pop(0)} if self.batches else {}

    async def committed(self, _: TopicPartition) -> int | None:
        return None

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.seeks.append(offset)

    def assignment(self) -> set[TopicPartition]:
        return {AT}

    def pause(self, *at: TopicPartition) -> None:
        self.was_paused |= set(at)

    def resume(self, *at: TopicPartition) -> None:
        self.was_paused -= set(at)

    def paused(self) -> set[TopicPartition]:
        return self.was_paused

    def highwater(self, _: TopicPartition) -> int:
        return self.end

    def last_poll_timestamp(self, _: TopicPartition) -> float:
        return self.answered_s * 1000

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.commits.append(offsets)


class Letters:
    """Dead letters in memory. `limit` in a row are too many."""

    def __init__(self, limit: int) -> None:
        self.reasons: list[str] = []
        self._limit = limit

    def reset_count(self, _: int) -> None:
        return

    async def send(self, _: ConsumerRecord, reason: str) -> None:
        if len(self.reasons) + 1 >= self._limit:
            raise TooManyDeadLettersError(reason)
        self.reasons.append(reason)


class Process:
    """A consumer on stand-ins, in a task group that stands for its process."""

    def __init__(self, settings: Settings, tasks: asyncio.TaskGroup) -> None:
        self.world = World(settings)
        self.kafka = Kafka()
        self.letters = Letters(settings.dead_letters_in_a_row)
        kafka, letters = cast("AIOKafkaConsumer", self.kafka), cast("DeadLetters", self.letters)
        self.consumer = LogConsumer(kafka, self.world.services, letters, tasks)
        self.stop = Stop()


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[Process]:
    """Assign partition 0 to the process, and revoke it when the body ends."""
    async with asyncio.TaskGroup() as tasks:
        running = Process(settings, tasks)
        await running.consumer.on_partitions_assigned([AT])
        yield running
        await running.consumer.on_partitions_revoked([AT])


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition 0 begins at offset 0 and ends at 10."""

    async def read_bounds(_: object, partitions: list[TopicPartition]) -> module.Bounds:
        return dict.fromkeys(partitions, (0, 10))

    monkeypatch.setattr(module, "read_bounds", read_bounds)


async def speakers(running: Process, chunk: Callable[..., AudioChunk], count: int, seconds: int) -> list[Writer]:
    """Start sessions in the middle of a segment of `seconds`, on all of which voice activity has run."""
    writers = [Writer(chunk, str(number)) for number in range(count)]
    for writer in writers:
        for kind, data in ((AudioKind.START, b""), (AudioKind.AUDIO, loud(seconds))):
            await running.consumer.partitions[0].append_record(*writer.next(kind, data))
    while running.world.vad.has_work:
        await running.world.vad.run()
    await running.world.log.wait_for(SessionStart, count)
    return writers


def go_silent(running: Process) -> None:
    """Make every session's last record 100 s old."""
    for task in running.consumer.partitions[0].sessions.values():
        task.last_record_s = time.monotonic() - 100


async def test_a_process_is_ready_when_it_has_taken_over(settings: Callable[..., Settings]) -> None:
    """A process is ready once it has taken over its partitions, and not ready while they change hands."""
    async with asyncio.TaskGroup() as tasks:
        running = Process(settings(), tasks)
        assert running.consumer.why_not_ready == "no partitions are assigned yet"
        await running.consumer.on_partitions_assigned([AT])
        became_ready = running.consumer.why_not_ready is None
        assert (became_ready, running.world.log.assigned, running.kafka.seeks) == (True, [0], [0])
        await running.consumer.on_partitions_revoked([AT])
        assert running.consumer.why_not_ready == "partitions are changing hands"
        assert running.consumer.partitions == {}


async def test_a_process_that_cannot_take_over_ends(settings: Callable[..., Settings]) -> None:
    """A failed takeover ends the process: aiokafka would only log it, and the process would stay ready but idle."""
    processes: list[Process] = []

    async def take_over() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = Process(settings(), tasks)
            processes.append(running)
            running.world.log.assign_error = OSError("no good")
            tasks.create_task(running.consumer.run(running.stop))
            with suppress(OSError):  # as aiokafka does
                await running.consumer.on_partitions_assigned([AT])

    with pytest.raises(ExceptionGroup) as group:
        await take_over()
    assert group.group_contains(OSError, match="no good")
    assert processes[0].consumer.why_not_ready is not None
    assert processes[0].kafka.is_stopped


async def test_the_lag_of_partitions_that_went_to_others_is_not_shown_any_more(
    settings: Callable[..., Settings],
) -> None:
    """A former owner stops reporting the lag, which would otherwise keep an alert and the autoscaler busy for ever."""
    async with process(settings()) as running:
        running.kafka.end = 12
        await running.consumer.housekeep()
        assert REGISTRY.get_sample_value("whisperline_transcriber_lag_records", {"partition": "0"}) == 12
    assert REGISTRY.get_sample_value("whisperline_transcriber_lag_records", {"partition": "0"}) is None
    assert REGISTRY.get_sample_value("whisperline_transcriber_lag_seconds", {"partition": "0"}) is None


async def test_audio_after_voice_activity_does_not_pause_the_partition(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """Audio of open segments that voice activity has processed does not count as waiting, so nothing is paused."""
    async with process(settings(max_buffered_s=60)) as running:
        writers = await speakers(running, chunk, count=8, seconds=10)
        await running.consumer.housekeep()
        assert running.kafka.was_paused == set()
        partition = running.consumer.partitions[0]
        for writer in writers:  # voice activity has not run on this yet
            await partition.append_record(*writer.next(AudioKind.AUDIO, silent(10)))
        await running.consumer.housekeep()
        assert running.kafka.was_paused == {AT}
        assert REGISTRY.get_sample_value("whisperline_transcriber_sessions") == 8
        while running.world.vad.has_work:
            await running.world.vad.run()
        await running.world.log.wait_for(Final, 8)
        await asyncio.sleep(0)
        await running.consumer.housekeep()
        assert running.kafka.was_paused == set()


async def test_no_session_is_idle_while_the_log_is_not_read(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """No session counts as idle while Kafka is unavailable or the partition is paused."""
    async with process(settings()) as running:
        await speakers(running, chunk, count=1, seconds=1)
        for answered_s in (time.time() - 60, time.time()):  # Kafka is still unavailable; Kafka has just come back
            running.kafka.answered_s = answered_s
            go_silent(running)
            await running.consumer.housekeep()
            assert running.world.log.ends == []
        go_silent(running)
        await running.consumer.housekeep()
        assert [chunk.kind for chunk in running.world.log.ends] == [AudioKind.END]


async def test_no_session_is_idle_while_the_partition_is_behind(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """No session counts as idle while the partition is behind, because the unread records may belong to it."""
    async with process(settings()) as running:
        await speakers(running, chunk, count=1, seconds=1)
        running.kafka.end = 10
        for _ in range(3):
            go_silent(running)
            await running.consumer.housekeep()
        assert running.world.log.ends == []


async def test_the_low_watermark_is_committed_when_it_moves(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """The low watermark is committed when it moves, and not again while it stays the same."""
    async with process(settings()) as running:
        await speakers(running, chunk, count=1, seconds=1)
        running.consumer.partitions[0].note_read(record_of(chunk(), 1))
        for _ in range(3):
            await running.consumer.housekeep()
        assert running.kafka.commits == [{AT: 1}]


async def test_a_process_that_stops_lets_closed_segments_become_finals(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """A stopping process waits until closed segments have become finals; then it commits and leaves the group."""
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        running = Process(settings(), tasks)
        await running.consumer.on_partitions_assigned([AT])
        writer = Writer(chunk)
        written = ((AudioKind.START, b""), (AudioKind.AUDIO, loud(1)), (AudioKind.FINALIZE, b""))
        running.kafka.batches.append([writer.next(kind, data)[1] for kind, data in written])
        following = tasks.create_task(running.consumer.run(running.stop))
        running.world.decoding.finals.clear()
        running.world.decoding.partial_every = 60 * SECOND  # only the final is asked for
        await running.world.log.wait_for(SessionStart)
        while not running.world.decoding.asked:  # noqa: ASYNC110 - a stand-in tells nobody
            await asyncio.sleep(0)
        running.stop.set()
        await asyncio.sleep(0)
        running.world.decoding.finals.set()
        await following
    decided = running.world.log.all(Progress)
    assert [each.next_segment_index for each in decided] == [0, 1]
    assert running.kafka.commits[-1] == {AT: 1}
    assert running.kafka.is_stopped


async def test_a_record_that_cannot_be_read_is_set_aside_and_the_next_one_is_read(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """Unreadable records, and one with an unknown reply partition, become dead letters; the next record is read."""
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        running = Process(settings(), tasks)
        await running.consumer.on_partitions_assigned([AT])
        start = chunk(AudioKind.START)
        nowhere = record_of(start, 1)
        nowhere.headers = [(name, b"99" if name == "reply_partition" else value) for name, value in start.headers()]
        garbage = record_of(start, 0)
        garbage.headers = [("x", b"1")]
        running.kafka.batches.append([garbage, nowhere, record_of(start, 2)])
        following = tasks.create_task(running.consumer.run(running.stop))
        await running.world.log.wait_for(SessionStart)
        running.stop.set()
        await following
    assert len(running.letters.reasons) == 2
    assert "no partition 99" in running.letters.reasons[1]
    assert running.kafka.commits[-1] == {AT: 3}


async def test_too_many_dead_letters_end_the_process(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """The record that exceeds the limit is not committed, so that a better release reads it again."""
    processes: list[Process] = []

    async def read_garbage() -> None:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            running = Process(settings(dead_letters_in_a_row=3), tasks)
            processes.append(running)
            await running.consumer.on_partitions_assigned([AT])
            garbage = [record_of(chunk(AudioKind.START), at) for at in range(9)]
            for record in garbage:
                record.headers = []
            running.kafka.batches.append(garbage)
            await running.consumer.run(running.stop)

    with pytest.raises(ExceptionGroup) as group:
        await read_garbage()
    assert group.group_contains(TooManyDeadLettersError)
    assert len(processes[0].letters.reasons) == 2
    assert processes[0].consumer.partitions[0].watermark.low() == 2


async def test_a_partition_whose_race_was_lost_is_read_again_from_its_watermark(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """After a lost race the session goes on from the decision that counts, and the lost one is not published."""
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        running = Process(settings(), tasks)
        running.world.log.others[1] = progress(owner="another")
        await running.consumer.on_partitions_assigned([AT])
        running.kafka.batches.append([record_of(chunk(AudioKind.START), 0)])
        following = tasks.create_task(running.consumer.run(running.stop))
        while len(running.kafka.seeks) < 2:  # noqa: ASYNC110 - a stand-in tells nobody
            await asyncio.sleep(0)
        running.stop.set()
        await following
    assert running.kafka.seeks == [0, 0]
    assert running.world.log.all(SessionStart) == []
