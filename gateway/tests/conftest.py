"""Real Kafka and PostgreSQL, and gateways that listen on real sockets. What they are made of is in `harness`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from harness import TASKS, RunningGateway, Scribe, StartGateway, run_gateway
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_local import LocalSettings, Stack
from whisperline_persistence import Store

CHECKOUT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka and PostgreSQL, with an empty, migrated database."""
    settings = LocalSettings(
        state_dir=tmp_path_factory.mktemp("stack"), cache_dir=CHECKOUT / ".state" / "cache", port_offset=12_000
    )
    async with Stack(settings, services=("kafka", "migrate")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(stack: Stack) -> AsyncIterator[Store]:
    """The database, to write what persistence would."""
    async with Store.open(stack.database_url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scribe(stack: Stack) -> AsyncIterator[Scribe]:
    """A scribe that has read the log from its beginning."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    async with consumer, producer:
        partitions = await producer.partitions_for(AUDIO_CHUNKS)
        consumer.assign([TopicPartition(AUDIO_CHUNKS, partition) for partition in partitions])
        opened = Scribe(consumer, producer)
        reading = asyncio.create_task(opened.read())
        yield opened
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def start_gateway(stack: Stack, scribe: Scribe) -> AsyncIterator[StartGateway]:
    """Start gateways, with any settings; all are stopped at the end, and must leave no task behind."""
    async with AsyncExitStack() as running:

        async def start(**changes: object) -> RunningGateway:
            return await running.enter_async_context(run_gateway(stack, **changes))

        before = asyncio.all_tasks()
        yield start
    left = {task for task in asyncio.all_tasks() - before if task.get_name().startswith(TASKS)}
    assert not left
