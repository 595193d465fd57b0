"""Whatever is no good can be moved aside, however long Kafka is away."""

from typing import Any

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from pydantic import SecretStr
from whisperline_contracts.topics import MAX_MESSAGE_BYTES
from whisperline_persistence import consumer as module
from whisperline_persistence.batch import Rejected
from whisperline_persistence.settings import Settings


class Producer:
    """Has no room for the first records, then writes those that have a key or a value, and a size that Kafka takes."""

    def __init__(self, no_room: int) -> None:
        self.no_room = no_room
        self.written: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []

    async def send_and_wait(
        self, topic: str, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        assert key is not None or value is not None
        if len(key or b"") + len(value or b"") + sum(len(text) for _, text in headers) > MAX_MESSAGE_BYTES:
            raise MessageSizeTooLargeError
        if self.no_room:
            self.no_room -= 1
            raise KafkaTimeoutError
        self.written.append((key, value, dict(headers)))


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", b"x" * (MAX_MESSAGE_BYTES - 10), []),
        (b"k" * (MAX_MESSAGE_BYTES - 10), None, []),
        (b"k", None, [("large", b"x" * (MAX_MESSAGE_BYTES - 10))]),
        (None, None, []),
    ],
    ids=["large value", "large key", "large headers", "neither"],
)
async def test_every_record_can_be_buried(
    monkeypatch: pytest.MonkeyPatch, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    """Where the reason has no room beside the record, the letter only points to it; a time-out is no refusal."""
    monkeypatch.setattr(module, "delays_s", lambda **_: iter([0.0] * 9))
    settings = Settings(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    nothing: Any = None
    consumer = module.Consumer(settings, nothing, nothing, nothing)
    consumer._dead = producer = Producer(no_room=3)
    record = ConsumerRecord("transcriptions", 3, 7, 0, 0, key, value, 0, 0, 0, headers)
    await consumer._bury(Rejected(record, "no good"))
    ((at, left, told),) = producer.written
    assert (at, left) == (b"", None)
    assert (told["dead_letter.partition"], told["dead_letter.offset"]) == (b"3", b"7")
    assert told["dead_letter.reason"] == b"no good"
