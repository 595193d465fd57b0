"""The transcriber as a process, on real Kafka and Triton, handles wrong and late records, races and shutdowns."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Final,
    Finalized,
    Progress,
    Resumed,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    decode_event,
    decode_progress,
    encode_progress,
)
from whisperline_contracts.topics import (
    AUDIO_CHUNKS,
    AUDIO_CHUNKS_DEAD,
    MAX_MESSAGE_BYTES,
    SESSION_PROGRESS,
    TRANSCRIPTIONS,
    topics,
)
from whisperline_local import LocalSettings, Stack
from whisperline_runtime.broker import Broker
from whisperline_runtime.create_topics import create_topics
from whisperline_runtime.producer import DurableProducer
from whisperline_transcriber.log.progress import ProgressLog

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CACHE = Path(__file__).parents[2] / ".state" / "cache"
PORT_OFFSET = 14_000
REPLY_PARTITION = 3
LIMIT_S = 30.0
Kind = TypeVar("Kind")
ENV = {
    "WHISPERLINE_TRANSCRIBER_IDLE_TIMEOUT_S": "4",
    "WHISPERLINE_TRANSCRIBER_DEAD_LETTERS_IN_A_ROW": "5",
    "WHISPERLINE_TRANSCRIBER_DRAIN_DEADLINE_S": "2",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka, Triton and one transcriber."""
    settings = LocalSettings(
        state_dir=tmp_path_factory.mktemp("transcriber"),
        cache_dir=CACHE,
        port_offset=PORT_OFFSET,
        service_env={"transcriber": ENV},
    )
    async with Stack(settings, services=["transcriber"]) as running:
        yield running


class Log:
    """The log from one session's point of view: it writes the session's records and reads its events."""

    def __init__(self, producer: AIOKafkaProducer, events: AIOKafkaConsumer, dead: AIOKafkaConsumer) -> None:
        self.session_id = uuid.uuid4().hex
        self.producer, self._events, self.dead = producer, events, dead
        self.position = 0

    async def write(self, kind: AudioKind, data: bytes = b"", **more: Any) -> int:
        """Append a record to the session; return its offset."""
        ids = {"session_id": self.session_id, "connection_id": "first", "client_id": "test", "sequence": 0}
        place = {"position": self.position, "sample_rate": 16_000, "reply_partition": REPLY_PARTITION}
        chunk = AudioChunk(**{**ids, **place, "kind": kind, "data": data, **more})
        self.position += chunk.samples
        key, headers = self.session_id.encode(), chunk.headers()
        offset: int = (await self.producer.send_and_wait(AUDIO_CHUNKS, data, key=key, headers=headers)).offset
        return offset

    async def event(self, kind: type[Kind]) -> Kind:
        """Return the session's next event of a kind."""
        async with asyncio.timeout(LIMIT_S):
            async for record in self._events:
                event = decode_event(record.value)
                if event.session_id == self.session_id and isinstance(event, kind):
                    return event
        raise AssertionError("the log ended")


@pytest_asyncio.fixture(loop_scope="module")
async def log(stack: Stack) -> AsyncIterator[Log]:
    """A new session's log, whose readers begin at the current ends of their topics."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    events = await _at_end(stack, TopicPartition(TRANSCRIPTIONS, REPLY_PARTITION))
    dead = await _at_end(stack, TopicPartition(AUDIO_CHUNKS_DEAD, 0))
    await producer.start()
    try:
        yield Log(producer, events, dead)
    finally:
        for each in (producer, events, dead):
            await each.stop()


async def _at_end(stack: Stack, at: TopicPartition) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap)
    await consumer.start()
    consumer.assign([at])
    await consumer.seek_to_end(at)
    await consumer.position(at)
    return consumer


async def test_an_unreadable_record_is_set_aside_with_its_reason_and_the_partition_moves_on(log: Log) -> None:
    """An unreadable record goes unchanged to the dead letters, and the session after it is served."""
    sent = await log.producer.send_and_wait(
        AUDIO_CHUNKS, b"garbage", key=log.session_id.encode(), headers=[("x", b"1")]
    )
    await log.write(AudioKind.START)
    await log.event(SessionStart)
    async with asyncio.timeout(LIMIT_S):
        letter = await log.dead.getone()
    headers = dict(letter.headers)
    assert letter.value == b"garbage"
    assert headers["x"] == b"1"
    assert headers["dead_letter.reason"] == b"header 'schema' is missing"
    assert headers["dead_letter.topic"] == AUDIO_CHUNKS.encode()
    assert headers["dead_letter.partition"] == str(sent.partition).encode()
    assert headers["dead_letter.offset"] == str(sent.offset).encode()


async def test_a_record_too_large_for_the_dead_letters_leaves_its_origin(log: Log) -> None:
    """If a record leaves no room for the reason, its dead letter has the origin but no value."""
    large = b"x" * (MAX_MESSAGE_BYTES - 150)
    sent = await log.producer.send_and_wait(AUDIO_CHUNKS, large, key=log.session_id.encode())
    await log.write(AudioKind.START)
    await log.event(SessionStart)
    async with asyncio.timeout(LIMIT_S):
        letter = await log.dead.getone()
    assert letter.value is None
    assert dict(letter.headers)["dead_letter.offset"] == str(sent.offset).encode()


async def test_a_reply_partition_that_does_not_exist_is_unreadable(log: Log) -> None:
    """A record with an unknown reply partition becomes a dead letter, instead of blocking its partition."""
    await log.write(AudioKind.START, reply_partition=99)
    async with asyncio.timeout(LIMIT_S):
        letter = await log.dead.getone()
    assert b"no partition 99" in dict(letter.headers)["dead_letter.reason"]


async def test_a_reply_partition_that_is_added_is_replied_to(stack: Stack, log: Log) -> None:
    """Running transcribers serve a gateway that was added with its reply partition."""
    await create_topics(Broker(stack.kafka_bootstrap), topics(reply_partitions=9))
    replies = await _at_end(stack, TopicPartition(TRANSCRIPTIONS, 8))
    try:
        await log.write(AudioKind.START, reply_partition=8)
        async with asyncio.timeout(LIMIT_S):
            event = decode_event((await replies.getone()).value)
    finally:
        await replies.stop()
    assert (type(event), event.session_id) == (SessionStart, log.session_id)


async def test_a_session_without_records_is_ended_through_the_log(log: Log) -> None:
    """When client and gateway are gone, the transcriber writes the END itself and ends the session when it reads it."""
    await log.write(AudioKind.START)
    await log.write(AudioKind.AUDIO, np.zeros(16_000, np.int16).tobytes())
    end = await log.event(SessionEnd)
    assert (end.reason, end.segment_count, end.duration_ms) == ("idle", 0, 1_000)


async def test_a_resumption_is_answered_where_it_asks(log: Log) -> None:
    """RESUME is answered with the end of the durable audio, or with the end of a session that is over or unknown."""
    await log.write(AudioKind.START)
    await log.write(AudioKind.AUDIO, np.zeros(8_000, np.int16).tobytes())
    await log.write(AudioKind.RESUME, connection_id="second")
    resumed = await log.event(Resumed)
    assert (resumed.position, resumed.next_segment_index, resumed.connection_id) == (8_000, 0, "second")
    await log.write(AudioKind.END, connection_id="first")
    await log.write(AudioKind.FINALIZE, connection_id="second")
    assert (await log.event(Finalized)).position_ms == 500
    await log.write(AudioKind.END, connection_id="second")
    assert (await log.event(SessionEnd)).reason == "closed"
    await log.write(AudioKind.RESUME, connection_id="third")
    late = await log.event(SessionEnd)
    assert (late.reason, late.connection_id) == ("closed", "third")
    log.session_id = uuid.uuid4().hex
    await log.write(AudioKind.RESUME)
    assert (await log.event(SessionEnd)).reason == "unknown"


async def test_nothing_behind_an_end_is_used(log: Log) -> None:
    """A RESUME after the END is answered with the end of the session, and its audio is ignored."""
    half_a_second = np.zeros(8_000, np.int16).tobytes()
    await log.write(AudioKind.START)
    await log.write(AudioKind.AUDIO, half_a_second)
    await log.write(AudioKind.END)
    await log.write(AudioKind.RESUME, connection_id="second")
    await log.write(AudioKind.AUDIO, half_a_second, connection_id="second")
    ends = [await log.event(SessionEnd), await log.event(SessionEnd)]
    assert [(end.connection_id, end.reason, end.duration_ms) for end in ends] == [
        ("first", "closed", 500),
        ("second", "closed", 500),
    ]


async def test_a_process_that_decides_second_goes_on_from_what_counts(
    stack: Stack, log: Log, progress: Callable[..., Progress]
) -> None:
    """The process publishes the other process's decision unchanged, and the session goes on from there."""
    attached_at = await log.write(AudioKind.START)
    started = await log.event(SessionStart)
    ids = {"session_id": log.session_id, "connection_id": "first", "client_id": "test", "time_ms": started.time_ms}
    said = {"start_ms": 0, "end_ms": 1_000, "text": "so it goes", "words": (), "language": "en", "confidence": 1}
    made = {"reason": SegmentEnd.SILENCE, "model": "another", "model_version": "7", "position": 16_000}
    theirs = progress(16_000, session_id=log.session_id, owner="another").model_copy(
        update={
            "connection_id": "first",
            "client_id": "test",
            "reply_partition": REPLY_PARTITION,
            "revision": 2,
            "attached_at": attached_at,
            "next_segment_index": 1,
            "final": Final(**ids, segment_index=0, **said, **made),
        }
    )
    await log.producer.send_and_wait(SESSION_PROGRESS, encode_progress(theirs), key=log.session_id.encode())
    await log.write(AudioKind.AUDIO, np.zeros(32_000, np.int16).tobytes())
    await log.write(AudioKind.FINALIZE)
    await log.write(AudioKind.END)
    assert await log.event(Final) == theirs.final
    end = await log.event(SessionEnd)
    assert (end.segment_count, end.duration_ms) == (1, 2_000)
    assert "another wrote revision 2 first" in stack.log("transcriber").read_text()


async def test_every_decision_is_in_the_progress_log(stack: Stack, log: Log) -> None:
    """A session's progress counts its revisions from 1, and ends with the end."""
    await log.write(AudioKind.START)
    await log.write(AudioKind.END)
    await log.event(SessionEnd)
    consumer = AIOKafkaConsumer(SESSION_PROGRESS, bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        revisions = []
        async with asyncio.timeout(LIMIT_S):
            async for record in consumer:
                if record.key == log.session_id.encode() and record.value is not None:
                    progress = decode_progress(record.value)
                    revisions.append(progress.revision)
                    if progress.end is not None:
                        break
    finally:
        await consumer.stop()
    assert revisions == [1, 2]


async def test_of_two_owners_the_first_in_the_log_decides(stack: Stack, progress: Callable[..., Progress]) -> None:
    """Both processes, and one that reads the log later, accept the first decision and never the second."""
    session_id = uuid.uuid4().hex
    broker = Broker(stack.kafka_bootstrap)
    async with DurableProducer(broker, "test") as producer, asyncio.TaskGroup() as tasks:
        owners = [ProgressLog(broker, producer, tasks) for _ in range(3)]
        try:
            for each in owners[:2]:
                await each.assign([0])
            proposed = [
                progress(base, session_id=session_id, owner=owner) for owner, base in (("one", 1_000), ("other", 2_000))
            ]
            pairs = zip(owners[:2], proposed, strict=True)
            counted = await asyncio.gather(*(each.propose(0, record) for each, record in pairs))
            await owners[2].assign([0])
            assert counted[0] == counted[1] == owners[2].sessions(0)[session_id]
            assert counted[0] in proposed
            assert await owners[2].propose(0, progress(3_000, session_id=session_id, owner="late")) == counted[0]
        finally:
            for each in owners:
                await each.close()


async def test_sigterm_hands_over_and_exits_in_time(stack: Stack, log: Log) -> None:
    """On SIGTERM the process ends by itself, and the next one goes on with the session."""
    await log.write(AudioKind.START)
    await log.event(SessionStart)
    await _terminate(stack)
    await log.write(AudioKind.AUDIO, np.zeros(8_000, np.int16).tobytes())
    await log.write(AudioKind.END)
    end = await log.event(SessionEnd)
    assert end.duration_ms == 500
    assert "Traceback" not in stack.log("transcriber").read_text()


async def _terminate(stack: Stack) -> None:
    pid = stack.pid("transcriber")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(LIMIT_S):
        while stack.pid("transcriber") == pid:  # noqa: ASYNC110 - another process sets no event here
            await asyncio.sleep(0.1)


async def test_sigterm_is_obeyed_while_kafka_is_away(stack: Stack) -> None:
    """SIGTERM ends the process while Kafka is unavailable, and its successor is ready once Kafka is back."""
    await stack.stop("kafka")
    try:
        await _terminate(stack)
    finally:
        await stack.start("kafka")
    await stack.wait_healthy("transcriber")


async def test_too_many_dead_letters_stop_the_process(stack: Stack, log: Log) -> None:
    """A bad release must not drain the log: after the limit the process ends and says why."""
    restarts = stack.restarts("transcriber")
    written = [await log.producer.send_and_wait(AUDIO_CHUNKS, b"garbage", key=b"one partition") for _ in range(6)]
    try:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(4):
                await log.dead.getone()
            while stack.restarts("transcriber") == restarts:  # noqa: ASYNC110 - another process sets no event here
                await asyncio.sleep(0.1)
        assert "records in a row cannot be used" in stack.log("transcriber").read_text()
    finally:
        # The next process would stop at the same records: commit past them, as an operator does with a bad producer.
        await stack.stop("transcriber")
        at = TopicPartition(AUDIO_CHUNKS, written[0].partition)
        async with AIOKafkaConsumer(
            bootstrap_servers=stack.kafka_bootstrap, group_id="transcriber", enable_auto_commit=False
        ) as group:
            group.assign([at])
            await group.commit(await group.end_offsets([at]))
        await stack.start("transcriber")
        await stack.wait_healthy("transcriber")
