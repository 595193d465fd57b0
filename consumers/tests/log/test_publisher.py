"""Events are published however long Kafka is unavailable; best-effort ones may be lost, and are counted."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)
from prometheus_client import REGISTRY
from whisperline_contracts import AudioChunk, AudioKind, Partial, SpeechStarted
from whisperline_contracts.topics import AUDIO_CHUNKS_DEAD, MAX_MESSAGE_BYTES
from whisperline_runtime import producer as runtime
from whisperline_runtime.broker import Broker
from whisperline_runtime.producer import DeadLetters, DurableProducer
from whisperline_transcriber import metrics
from whisperline_transcriber.log import publisher as module
from whisperline_transcriber.log.publisher import Publisher

IDS = {"session_id": "s", "connection_id": "c", "client_id": "u", "time_ms": 1}
STARTED = SpeechStarted.model_validate({**IDS, "segment_index": 0, "start_ms": 0})
PARTIAL = Partial.model_validate({**IDS, "segment_index": 0, "start_ms": 0, "end_ms": 1, "text": "", "stable_text": ""})


class Kafka:
    """A Kafka client that fails with each of `errors` in turn, then writes. It rejects records as Kafka would."""

    def __init__(self) -> None:
        self.errors: list[KafkaError] = []
        self.written: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []
        self.acknowledged: asyncio.Future[None] | None = None
        self.topic_partitions = {0, 1}
        self.client = self

    async def send(self, topic: str, value: bytes | None, **more: Any) -> "asyncio.Future[None]":
        await self.send_and_wait(topic, value, **more)
        if self.acknowledged is not None:
            return self.acknowledged
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send_and_wait(self, _: str, value: bytes | None, **more: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        key, headers = more["key"], dict(more.get("headers") or [])
        assert key is not None or value is not None
        if len(key or b"") + len(value or b"") + sum(map(len, headers.values())) > MAX_MESSAGE_BYTES:
            raise MessageSizeTooLargeError
        self.written.append((key, value, headers))

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def force_metadata_update(self) -> None:
        return

    async def partitions_for(self, _: str) -> set[int]:
        return self.topic_partitions


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch, no_waits: None) -> Kafka:
    """The client of every producer."""
    kafka = Kafka()
    monkeypatch.setattr(runtime, "AIOKafkaProducer", lambda **_: kafka)
    return kafka


@pytest.fixture
async def producer(kafka: Kafka) -> AsyncIterator[DurableProducer]:
    async with DurableProducer(Broker("nowhere:1"), "test") as producer:
        yield producer


@pytest.fixture
def publisher(producer: DurableProducer) -> Publisher:
    return Publisher(producer)


def partials(outcome: str) -> float:
    return REGISTRY.get_sample_value("whisperline_transcriber_partials_total", {"outcome": outcome}) or 0


async def test_an_event_is_written_however_long_kafka_is_away(kafka: Kafka, publisher: Publisher) -> None:
    """A full buffer and a lost connection are both retried until the event is written."""
    kafka.errors = [KafkaTimeoutError(), KafkaConnectionError()] * 10
    await publisher.send(STARTED, 0)
    assert len(kafka.written) == 1


async def test_an_error_that_waiting_does_not_cure_is_raised(kafka: Kafka, publisher: Publisher) -> None:
    """An error that waiting does not fix, such as a missing permission, is raised."""
    kafka.errors = [TopicAuthorizationFailedError()]
    with pytest.raises(TopicAuthorizationFailedError):
        await publisher.send(STARTED, 0)


async def test_a_partial_is_counted_as_sent_or_shed(kafka: Kafka, publisher: Publisher) -> None:
    """A partial counts as sent once Kafka has it, and as shed if there was no room or it was lost on the way."""
    sent, shed = partials("sent"), partials("shed_kafka")
    kafka.errors = [KafkaTimeoutError()]
    assert not await publisher.send_best_effort(PARTIAL, 0)
    assert await publisher.send_best_effort(PARTIAL, 0)
    kafka.acknowledged = asyncio.get_running_loop().create_future()
    assert await publisher.send_best_effort(PARTIAL, 0)
    kafka.acknowledged.set_exception(KafkaConnectionError())
    await asyncio.sleep(0)
    assert (partials("sent") - sent, partials("shed_kafka") - shed) == (1, 2)


async def test_a_lost_event_of_another_type_does_not_count_as_a_partial(kafka: Kafka, publisher: Publisher) -> None:
    """A lost event that is not a partial does not count as a shed partial."""
    shed = partials("shed_kafka")
    kafka.errors = [KafkaTimeoutError()]
    assert not await publisher.send_best_effort(STARTED, 0)
    assert partials("shed_kafka") == shed


async def test_best_effort_events_under_way_are_bounded(
    kafka: Kafka, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit, best-effort events are dropped at once until Kafka answers."""
    monkeypatch.setattr(module, "MAX_BEST_EFFORT", 1)
    kafka.acknowledged = asyncio.get_running_loop().create_future()
    assert await publisher.send_best_effort(PARTIAL, 0)
    assert not await publisher.send_best_effort(PARTIAL, 0)
    kafka.acknowledged.set_result(None)
    await asyncio.sleep(0)
    assert await publisher.send_best_effort(PARTIAL, 0)


async def test_an_event_outside_of_a_trace_has_no_trace_header(kafka: Kafka, publisher: Publisher) -> None:
    """An event outside of a trace gets no trace header."""
    await publisher.send(STARTED, 0)
    assert kafka.written[0][2] == {}


async def test_a_record_of_audio_has_its_headers(kafka: Kafka, publisher: Publisher) -> None:
    """An END that the transcriber writes can be read like any other record."""
    end = AudioChunk("s", "c", "transcriber", AudioKind.END, 0, 5, 16_000, 0)
    await publisher.append_audio(end, 0)
    ((key, value, headers),) = kafka.written
    assert key == b"s"
    assert AudioChunk.from_record(headers.items(), value) == end


async def test_a_reply_partition_that_was_added_is_found(kafka: Kafka, publisher: Publisher) -> None:
    """A reply partition that was added after the start is found."""
    assert await publisher.has_reply_partition(1)
    assert not await publisher.has_reply_partition(2)
    kafka.topic_partitions = {0, 1, 2}
    assert await publisher.has_reply_partition(2)


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"k", b"x" * (MAX_MESSAGE_BYTES - 10)), (b"k" * (MAX_MESSAGE_BYTES - 10), None), (None, None)],
    ids=["large value", "large key", "neither"],
)
async def test_any_record_that_cannot_be_read_can_be_set_aside(
    kafka: Kafka, producer: DurableProducer, key: bytes | None, value: bytes | None
) -> None:
    """Where the reason has no room beside the record, the letter only points to it."""
    place = {"topic": "audio_chunks", "partition": 3, "offset": 7}
    record = cast("ConsumerRecord", SimpleNamespace(**place, key=key, value=value, headers=()))
    letters = DeadLetters(producer, AUDIO_CHUNKS_DEAD, consumer="transcriber", limit=2, counter=metrics.DEAD_LETTERS)
    await letters.send(record, "garbage")
    ((at, left, headers),) = kafka.written
    assert (at, left) == (b"", None)
    assert (headers["dead_letter.partition"], headers["dead_letter.offset"]) == (b"3", b"7")
    assert headers["dead_letter.reason"] == b"garbage"
    assert AUDIO_CHUNKS_DEAD.startswith(headers["dead_letter.topic"].decode())
