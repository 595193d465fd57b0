"""The dead-letter policy on a real Kafka: unusable records are copied, and too many stop the process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from prometheus_client import CollectorRegistry, Counter
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD
from whisperline_local import LocalSettings, Stack
from whisperline_runtime.broker import Broker
from whisperline_runtime.errors import StartupError, TooManyDeadLettersError
from whisperline_runtime.producer import DeadLetters, DurableProducer

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CACHE = Path(__file__).parents[2] / ".state" / "cache"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """Kafka with our topics."""
    settings = LocalSettings(state_dir=tmp_path_factory.mktemp("stack"), cache_dir=CACHE, port_offset=17_100)
    async with Stack(settings, services=["kafka"]):
        yield Broker(settings.kafka_bootstrap)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(broker: Broker) -> AsyncIterator[DurableProducer]:
    """A producer of ours."""
    async with DurableProducer(broker, "test") as running:
        yield running


def letters_of(producer: DurableProducer, limit: int = 3) -> DeadLetters:
    counter = Counter("dead_letters", "For this test", registry=CollectorRegistry())
    return DeadLetters(producer, TRANSCRIPTIONS_DEAD, consumer="persistence", limit=limit, counter=counter)


async def written(broker: Broker, producer: DurableProducer, value: bytes | None, key: bytes | None) -> ConsumerRecord:
    """Write a record of `transcriptions` with a header, and read it back."""
    at = TopicPartition(TRANSCRIPTIONS, 2)
    async with AIOKafkaConsumer(**broker.client_options(), enable_auto_commit=False) as consumer:
        consumer.assign([at])
        await consumer.seek_to_end(at)
        await consumer.position(at)
        await producer.write(TRANSCRIPTIONS, key, value, partition=2, headers=[("traceparent", b"00-a-b-01")])
        async with asyncio.timeout(20):
            return await consumer.getone()


async def last_letter(broker: Broker) -> ConsumerRecord:
    at = TopicPartition(TRANSCRIPTIONS_DEAD, 0)
    async with AIOKafkaConsumer(**broker.client_options(), enable_auto_commit=False) as consumer:
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        consumer.seek(at, end - 1)
        async with asyncio.timeout(20):
            return await consumer.getone()


async def test_a_record_is_copied_with_its_reason_and_origin(broker: Broker, producer: DurableProducer) -> None:
    """A dead letter is a copy of the record, with the reason and its origin in headers."""
    record = await written(broker, producer, b"no json", b"session")
    await letters_of(producer).send(record, "it is no JSON")
    letter = await last_letter(broker)
    assert (letter.key, letter.value) == (b"session", b"no json")
    assert dict(letter.headers) == {
        "traceparent": b"00-a-b-01",
        "dead_letter.reason": b"it is no JSON",
        "dead_letter.topic": TRANSCRIPTIONS.encode(),
        "dead_letter.partition": b"2",
        "dead_letter.offset": str(record.offset).encode(),
        "dead_letter.consumer": b"persistence",
    }


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", b"x" * (MAX_MESSAGE_BYTES - 10), []),
        (b"k" * (MAX_MESSAGE_BYTES - 10), None, []),
        (b"k", None, [("large", b"x" * (MAX_MESSAGE_BYTES - 10))]),
        (None, None, []),
    ],
    ids=["large value", "large key", "large headers", "neither key nor value"],
)
async def test_every_record_can_be_put_aside(
    broker: Broker,
    producer: DurableProducer,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
) -> None:
    """If a record leaves no room for the reason, the dead letter points to the record instead."""
    record = ConsumerRecord(TRANSCRIPTIONS, 3, 7, 0, 0, key, value, 0, 0, 0, headers)
    await letters_of(producer).send(record, "no good")
    letter = await last_letter(broker)
    told = dict(letter.headers)
    assert (letter.key, letter.value) == (b"", None)
    assert (told["dead_letter.partition"], told["dead_letter.offset"]) == (b"3", b"7")
    assert told["dead_letter.reason"] == b"no good"


async def test_too_many_in_a_row_stop_the_process(broker: Broker, producer: DurableProducer) -> None:
    """A readable record resets the count, and the record that exceeds the limit is not copied."""
    letters = letters_of(producer, limit=2)
    record = await written(broker, producer, b"no json", b"session")
    await letters.send(record, "first")
    letters.reset_count(record.partition)
    await letters.send(record, "second")
    with pytest.raises(TooManyDeadLettersError, match=r"2 records in a row .* offset \d+: third"):
        await letters.send(record, "third")
    assert dict((await last_letter(broker)).headers)["dead_letter.reason"] == b"second"


async def test_a_broker_that_is_away_is_waited_for_and_then_named() -> None:
    """If no broker answers within the limit, the error says what to check."""
    with pytest.raises(StartupError, match=r"127\.0\.0\.1:1 did not answer within 0\.3 s: check the address"):
        await Broker("127.0.0.1:1").wait_until_reachable(0.3)


async def test_the_private_names_of_aiokafka_that_we_use_are_there(broker: Broker) -> None:
    """The undocumented functions of aiokafka that `Broker.reach` uses still exist and work."""
    await broker.reach()
