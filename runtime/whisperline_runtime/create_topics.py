"""Create the topics that are missing in Kafka, add reply partitions, and change nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import (
    InvalidPartitionsError,
    KafkaConnectionError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    for_code,
)
from whisperline_contracts.topics import Topic

from whisperline_runtime.broker import Broker
from whisperline_runtime.errors import PartitionsDifferError
from whisperline_runtime.retry import retrying

log = logging.getLogger(__name__)

_SETTLE_S = 0.1  # until every broker's answer shows what was just done


async def create_topics(broker: Broker, wanted: Iterable[Topic]) -> None:
    """Return once every topic of `wanted` is there. Any number of processes may do this, repeatedly and at once.

    Waits for the broker as long as it takes: the caller bounds it. Raises `BrokerRefusedError`,
    `PartitionsDifferError`, and the `KafkaError`s with which Kafka refuses a topic.
    """
    topics = tuple(wanted)
    # A broker may answer before it has joined its own cluster (NodeNotReadyError).
    async for attempt in retrying((KafkaConnectionError, NodeNotReadyError), what="reaching Kafka"):
        with attempt:
            await broker.reach()
            async with _admin(broker) as admin:
                while missing := _missing(topics, await _partitions(admin)):
                    for topic, present in missing:
                        await (_grow(admin, topic, present) if present else _create(admin, topic))
                    await asyncio.sleep(_SETTLE_S)


def _missing(wanted: Iterable[Topic], partitions: Mapping[str, int]) -> list[tuple[Topic, int]]:
    """Return the topics that need work, each with its number of partitions today, 0 if it is not there."""
    present = [(topic, partitions.get(topic.name, 0)) for topic in wanted]
    for topic, count in present:
        if topic.keyed and count not in (0, topic.partitions):
            raise PartitionsDifferError(
                f"{topic.name} has {count} partitions, not {topic.partitions}, and keeps them: with another number "
                "the sessions that are under way would move to partitions whose transcribers do not know them"
            )
    return [(topic, count) for topic, count in present if count < topic.partitions]


@asynccontextmanager
async def _admin(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**broker.client_options())
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _create(admin: AIOKafkaAdminClient, topic: Topic) -> None:
    new = NewTopic(topic.name, topic.partitions, topic.replication_factor, topic_configs=dict(topic.config))
    for name, code, *message in (await admin.create_topics([new])).topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise for_code(code)(f"{name}: {message}")
    log.info("created %s with %d partitions", topic.name, topic.partitions)


async def _grow(admin: AIOKafkaAdminClient, topic: Topic, present: int) -> None:
    with suppress(InvalidPartitionsError):  # another process was quicker
        await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})
        log.info("raised the partitions of %s from %d to %d", topic.name, present, topic.partitions)
