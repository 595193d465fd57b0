"""A partition restores its sessions from the log, and forgets them when no replay and no client needs them."""

import asyncio
import math
import time
from collections.abc import Callable

import pytest
from in_memory import LIMIT_S, World, Writer, loud, record_of
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Final,
    Progress,
    SegmentEnd,
    SessionEnd,
    SessionStart,
)
from whisperline_transcriber.log.partition import Partition
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.segmentation import Segmentation, SegmentClosed
from whisperline_transcriber.stream.session import Session


@pytest.fixture
def world(settings: Callable[..., Settings]) -> World:
    return World(settings(remember_s=600))


def decided(before: Progress) -> Progress:
    """Return the progress after a final of the first second."""
    segment = SegmentClosed(0, 16_000, 16_000, SegmentEnd.FINALIZE, 16_000)
    said = Transcript(text="so", language="en", words=[], avg_logprob=0, model="whisper", version="1")
    decoded = events.Decoded(segment, Window(0, 0, 16_000), said)
    return events.segment_progress(before, decoded, Session.restored(before, Segmentation()), "before", 5)


def over(before: Progress) -> Progress:
    """Return the progress after the end of the session."""
    ids = events.ids_of(before, 6)
    end = SessionEnd(**ids, segment_count=before.next_segment_index, duration_ms=1_000, reason="closed")
    return events.end_progress(before, end, "before")


async def test_the_last_decisions_are_published_again_to_the_letter(
    world: World, progress: Callable[..., Progress]
) -> None:
    """The last decisions are published again, because the previous owner may have died before it published them."""
    world.log.counted = {
        "open": decided(progress(session_id="open")),
        "over": over(progress(session_id="over")),
    }
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        await partition.restore(end=10)
        assert list(partition.sessions) == ["open"]
        await partition.stop()
    assert world.log.happened == [world.log.counted["open"].final, world.log.counted["over"].end]


async def test_a_restored_session_goes_on_from_its_replay_start(
    world: World, progress: Callable[..., Progress], chunk: Callable[..., AudioChunk]
) -> None:
    """A restored session does not decide anything twice, and its next final has the next index."""
    world.log.counted = {"s": decided(progress())}
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        await partition.restore(end=10)
        writer = Writer(chunk)
        for kind, data in ((AudioKind.START, b""), (AudioKind.AUDIO, loud(1)), (AudioKind.AUDIO, loud(1))):
            await partition.append_record(*writer.next(kind, data))
        await partition.append_record(*writer.next(AudioKind.FINALIZE))
        await world.vad.run()
        await world.log.wait_for(Final, 2)
        await partition.stop()
    again, new = world.log.all(Final)
    assert (again.segment_index, new.segment_index) == (0, 1)
    assert (new.start_ms, new.end_ms) == (1_000, 2_000)
    assert world.log.all(SessionStart) == []


async def test_records_of_sessions_that_nobody_knows_are_left_out(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """Records of unknown sessions are ignored, except a RESUME, which is answered because its client waits."""
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        for kind in (AudioKind.AUDIO, AudioKind.FINALIZE, AudioKind.END, AudioKind.RESUME):
            await partition.append_record(chunk(kind), record_of(chunk(kind), 0))
    assert [each.reason for each in world.log.all(SessionEnd)] == ["unknown"]
    assert partition.sessions == {}


async def test_a_start_that_is_read_again_opens_nothing(
    world: World, chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """A START that a replay reads again after its session has ended does not open a session."""
    world.log.counted = {"s": over(progress())}
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        start = chunk(AudioKind.START)
        await partition.append_record(start, record_of(start, 0))
    assert partition.sessions == {}


async def test_an_ended_session_is_forgotten_when_no_replay_can_reach_it(
    settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """An ended session is forgotten only when no replay can reach it and its client has had time to come back."""
    world = World(settings(remember_s=600))
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        writer = Writer(chunk)
        for kind in (AudioKind.START, AudioKind.END):
            chunk_, record = writer.next(kind)
            partition.note_read(record)
            await partition.append_record(chunk_, record)
        await world.vad.run()
        await world.log.wait_for(SessionEnd)
    assert (partition.sessions, partition.watermark.low()) == ({}, 2)
    later_s = time.monotonic() + 601
    await partition.write_tombstones(later_s)
    partition.committed = 2
    await partition.write_tombstones(time.monotonic())
    assert world.log.tombstones == []
    for _ in range(2):
        await partition.write_tombstones(later_s)
    assert world.log.tombstones == ["s"]


async def test_a_race_that_was_lost_is_noted_and_ends_nothing_else(
    world: World, chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """A lost race marks the partition for a reload, and the process's other tasks go on."""
    world.log.others[1] = progress(owner="another")
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        assert partition.lost_race is None
        await partition.append_record(*Writer(chunk).next(AudioKind.START))
        await world.log.wait_for(Progress)
        async with asyncio.timeout(LIMIT_S):
            while partition.lost_race is None:  # noqa: ASYNC110 - it is set by a task that tells nobody
                await asyncio.sleep(0)
        assert "another wrote revision 1 first" in str(partition.lost_race)
        await partition.stop()


async def test_a_session_that_fails_otherwise_ends_the_process(
    world: World, chunk: Callable[..., AudioChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that fails for another reason than a lost race ends the process."""

    async def fail(*_: object) -> Progress:
        raise ValueError("no good")

    monkeypatch.setattr(world.log, "propose", fail)

    async def start() -> None:
        async with asyncio.TaskGroup() as tasks:
            partition = Partition(0, 0, world.services, tasks)
            await partition.append_record(*Writer(chunk).next(AudioKind.START))

    with pytest.raises(ExceptionGroup) as group:
        await start()
    assert group.group_contains(ValueError, match="no good")


async def test_stopping_leaves_what_is_not_decided(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """Stopping ends every task at once and removes the sessions from voice activity."""
    world.decoding.finals.clear()
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
        writer = Writer(chunk)
        await partition.append_record(*writer.next(AudioKind.START))
        await partition.append_record(*writer.next(AudioKind.AUDIO, loud(1)))
        await partition.append_record(*writer.next(AudioKind.FINALIZE))
        await world.vad.run()
        assert partition.is_busy
        await partition.append_record(*writer.next(AudioKind.AUDIO, loud(1)))
        await partition.stop()
    assert (partition.is_busy, world.vad.has_work) == (False, False)
    assert world.log.all(Final) == []


async def test_the_lag_is_the_records_and_the_age_of_the_last_one_read(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """The lag has no age before a record was read, and the partition does not count as caught up then."""
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 5, world.services, tasks)
    assert (partition.lag(5, 1_000).records, partition.lag(5, 1_000).is_caught_up) == (0, True)
    unread = partition.lag(8, 1_000)
    assert (unread.records, unread.age_s, unread.is_caught_up) == (3, None, False)
    partition.note_read(record_of(chunk(), 6, timestamp_ms=990_000))
    behind = partition.lag(8, 1_000)
    assert (behind.records, behind.is_caught_up) == (1, False)
    assert behind.age_s is not None
    assert math.isclose(behind.age_s, 10)
    assert partition.lag(8, 992).is_caught_up


async def test_a_partition_is_followed_while_kafka_answers_without_a_gap(world: World) -> None:
    """A partition is not followed while Kafka is unavailable or the partition is paused, nor right afterwards."""
    async with asyncio.TaskGroup() as tasks:
        partition = Partition(0, 0, world.services, tasks)
    followed = []
    for polled_ms, now_ms in (
        (0, 100_000),
        (100_500, 101_000),
        (102_000, 102_000),
        (102_000, 110_000),
        (111_000, 111_000),
    ):
        partition.note_poll(polled_ms, now_ms)
        followed.append(partition.is_followed)
    assert followed == [False, False, True, False, False]
