"""What is written to Kafka is written, however long it is away; what is only lively may be lost."""

import asyncio
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)
from prometheus_client import REGISTRY
from whisperline_contracts import SpeechStarted
from whisperline_contracts.broker import Broker
from whisperline_contracts.topics import AUDIO_CHUNKS_DEAD, MAX_MESSAGE_BYTES
from whisperline_transcriber.log import publisher as module
from whisperline_transcriber.log.publisher import Publisher

EVENT = SpeechStarted(session_id="s", connection_id="c", client_id="u", time_ms=1, segment_index=0, start_ms=0)


class Producer:
    """Fails with `errors`, one after the other, then writes; records must have a size and a key that Kafka takes."""

    def __init__(self, *errors: KafkaError) -> None:
        self.errors = list(errors)
        self.written: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []

    async def send(self, topic: str, value: bytes | None, **more: Any) -> "asyncio.Future[None]":
        await self.send_and_wait(topic, value, **more)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send_and_wait(self, topic: str, value: bytes | None, **more: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        key, headers = more["key"], dict(more.get("headers") or [])
        assert key is not None or value is not None
        if len(key or b"") + len(value or b"") + sum(map(len, headers.values())) > MAX_MESSAGE_BYTES:
            raise MessageSizeTooLargeError
        self.written.append((key, value, headers))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Producer:
    """The producer of every publisher; nobody waits between attempts."""
    producer = Producer()
    monkeypatch.setattr(module, "AIOKafkaProducer", lambda **_: producer)
    monkeypatch.setattr(module, "delays_s", lambda: repeat(0))
    return producer


async def test_a_record_is_written_however_long_kafka_is_away(written: Producer) -> None:
    """A time-out for want of room is no more the end than a connection that is lost."""
    written.errors = [KafkaTimeoutError(), KafkaConnectionError()] * 10
    await Publisher(Broker("nowhere:1")).event(EVENT, 0)
    assert len(written.written) == 1


async def test_what_waiting_does_not_cure_is_raised(written: Producer) -> None:
    """A right that is missing is not there later."""
    written.errors = [TopicAuthorizationFailedError()]
    with pytest.raises(TopicAuthorizationFailedError):
        await Publisher(Broker("nowhere:1")).event(EVENT, 0)


async def test_a_lively_event_may_be_lost(written: Producer) -> None:
    """It is counted, and nothing else comes of it."""
    before = REGISTRY.get_sample_value("whisperline_transcriber_shed_total", {"reason": "kafka"}) or 0
    written.errors = [KafkaTimeoutError()]
    await Publisher(Broker("nowhere:1")).event_soon(EVENT, 0)
    assert REGISTRY.get_sample_value("whisperline_transcriber_shed_total", {"reason": "kafka"}) == before + 1
    await Publisher(Broker("nowhere:1")).event_soon(EVENT, 0)
    assert len(written.written) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"k", b"x" * (MAX_MESSAGE_BYTES - 10)), (b"k" * (MAX_MESSAGE_BYTES - 10), None), (None, None)],
    ids=["large value", "large key", "neither"],
)
async def test_whatever_cannot_be_read_can_be_buried(written: Producer, key: bytes | None, value: bytes | None) -> None:
    """Where the reason has no room beside the record, the letter only points to it."""
    record = SimpleNamespace(topic="audio_chunks", partition=3, offset=7, key=key, value=value, headers=())
    await Publisher(Broker("nowhere:1")).dead_letter(record, "garbage", "transcriber")
    ((at, left, headers),) = written.written
    assert (at, left) == (b"", None)
    assert (headers["dead_letter.partition"], headers["dead_letter.offset"]) == (b"3", b"7")
    assert headers["dead_letter.reason"] == b"garbage"
    assert AUDIO_CHUNKS_DEAD.startswith(headers["dead_letter.topic"].decode())
