"""What is read while too much audio waits, and that nobody is taken for gone meanwhile."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import AudioChunk, AudioKind, Progress
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_transcriber.log.backpressure import crowded
from whisperline_transcriber.log.consumer import Transcriber
from whisperline_transcriber.log.partition import Live, Partition
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.session import Session
from whisperline_transcriber.stream.vad import fresh_state

AT = TopicPartition(AUDIO_CHUNKS, 0)


@given(st.lists(st.lists(st.floats(0, 30), min_size=4, max_size=4), max_size=40), st.sets(st.integers(0, 3)))
def test_reading_stops_below_the_limit_and_only_for_those_with_much(read_s: list[list[float]], stuck: set[int]) -> None:
    """Whatever comes in, and whoever's audio is never decided: all is bounded, and a small backlog does not wait."""
    limit_s, waits_s = 400.0, dict.fromkeys(range(4), 0.0)
    for turn in read_s:
        stopped = crowded(waits_s, limit_s)
        assert all(waits_s[number] >= limit_s / 8 for number in stopped)
        assert not stopped or sum(waits_s.values()) >= limit_s / 2
        for number, new_s in enumerate(turn):
            decided_s = 0 if number in stuck else 20
            waits_s[number] = max(0, waits_s[number] - decided_s) + (0 if number in stopped else new_s)
        assert sum(waits_s.values()) <= limit_s + sum(turn)


class Consumer:
    """The part of aiokafka's consumer that housekeeping looks at: it is caught up with partition 0."""

    def __init__(self) -> None:
        self.told_s = time.time()
        self.stopped: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return {AT}

    def pause(self, *at: TopicPartition) -> None:
        self.stopped |= set(at)

    def resume(self, *at: TopicPartition) -> None:
        self.stopped -= set(at)

    def paused(self) -> set[TopicPartition]:
        return self.stopped

    def highwater(self, at: TopicPartition) -> int:
        return 0

    def last_poll_timestamp(self, at: TopicPartition) -> float:
        return self.told_s * 1000

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        return


class Publisher:
    """Takes END records."""

    def __init__(self) -> None:
        self.ends: list[AudioChunk] = []

    async def audio(self, chunk: AudioChunk, partition: int) -> None:
        self.ends.append(chunk)


@pytest.fixture
def transcriber(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A transcriber that has partition 0, on stand-ins for its clients."""
    monkeypatch.setattr("whisperline_transcriber.log.consumer.VoiceActivity", lambda *_: None)
    settings = Settings(vad_model=Path(__file__))
    transcriber: Any = Transcriber(settings, "test")
    transcriber._consumer, transcriber.publisher = Consumer(), Publisher()
    services: Any = SimpleNamespace(settings=settings, publisher=transcriber.publisher)
    transcriber._partitions = {0: Partition(0, 0, services, lambda *_: None)}
    return transcriber


def heard(seconds: int) -> Session:
    """Return a session in the middle of a segment of so many seconds."""
    start = AudioChunk("s", "c", "u", AudioKind.START, 0, 0, 16_000, 0)
    session = Session(start, Segmentation())
    for at in range(seconds):
        data = np.zeros(16_000, np.int16).tobytes()
        session.receive(AudioChunk("s", "c", "u", AudioKind.AUDIO, 0, at * 16_000, 16_000, 0, data=data), at)
    while (frame := session.frame()) is not None:
        session.heard(frame, 0.9, fresh_state())
    assert session.segment_start == 0
    return session


async def test_what_is_listened_to_does_not_stop_the_reading(transcriber: Any) -> None:
    """200 speakers in the middle of 20 s each wait for what they say next, and for nothing else."""
    live, quiet = Live(heard(20), None), Live(heard(1), None)
    partition = transcriber._partitions[0]
    partition.live = {str(number): live for number in range(200)}
    await transcriber._housekeeping()
    assert transcriber._consumer.stopped == set()
    for at in range(20, 40):  # nobody hears this yet
        data = bytes(2 * 16_000)
        live.session.receive(AudioChunk("s", "c", "u", AudioKind.AUDIO, 0, at * 16_000, 16_000, 0, data=data), at)
    await transcriber._housekeeping()
    assert transcriber._consumer.stopped == {AT}
    partition.live = {"s": quiet}
    await transcriber._housekeeping()
    assert transcriber._consumer.stopped == set()


async def test_nobody_is_gone_while_the_log_is_not_read(transcriber: Any, progress: Callable[..., Progress]) -> None:
    """A session is idle only as far as Kafka has said so: not while it is away, or the partition must wait."""
    live = Live(heard(1), progress())
    transcriber._partitions[0].live = {"s": live}
    live.seen_s = time.monotonic() - 100
    for told_s in (time.time() - 60, time.time()):  # away still, and back just now
        transcriber._consumer.told_s = told_s
        live.seen_s = time.monotonic() - 100
        await transcriber._housekeeping()
        assert transcriber.publisher.ends == []
    live.seen_s = time.monotonic() - 100
    await transcriber._housekeeping()
    assert [chunk.kind for chunk in transcriber.publisher.ends] == [AudioKind.END]


async def test_who_resumed_before_an_idle_end_is_ended_as_idle_later(
    transcriber: Any, progress: Callable[..., Progress]
) -> None:
    """The END was for the connection before; the one that took its place may go silent, too."""
    live = Live(heard(1), progress())
    transcriber._partitions[0].live = {"s": live}

    async def goes_silent() -> list[str]:
        live.seen_s = time.monotonic() - 100
        for _ in range(2):
            await transcriber._housekeeping()
        return [chunk.connection_id for chunk in transcriber.publisher.ends]

    transcriber._consumer.told_s = time.time()
    await transcriber._housekeeping()
    assert await goes_silent() == ["c"]
    live.session.receive(AudioChunk("s", "d", "u", AudioKind.RESUME, 0, 16_000, 16_000, 0), 100)
    assert await goes_silent() == ["c", "d"]
