"""Brings a Kafka to the topics of `topics.py`: creates what is missing, adds reply partitions, changes nothing else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import (
    InvalidPartitionsError,
    KafkaConnectionError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    for_code,
)

from whisperline_contracts.broker import Broker
from whisperline_contracts.topics import Topic

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_SETTLE_S = 0.1  # what was just done is not at once in every broker's answer


class PartitionsDiffer(Exception):
    """A topic whose number of partitions must never change has another number than was asked for."""


async def create_topics(broker: Broker, wanted: Iterable[Topic]) -> None:
    """Return once every topic of `wanted` is there. Any number of processes may do this, again and at once.

    Waits for the broker as long as it takes: the caller bounds it. Raises `BrokerRefused`, `PartitionsDiffer`, and
    `KafkaError` for what Kafka does not want to do.
    """
    topics = tuple(wanted)
    while True:
        await _await(broker)
        try:
            return await _complete(broker, topics)
        except NodeNotReadyError:  # it answers, and has not joined its own cluster yet
            await asyncio.sleep(_RETRY_S)


async def _complete(broker: Broker, topics: Sequence[Topic]) -> None:
    async with _admin(broker) as admin:
        while missing := _missing(topics, await _partitions(admin)):
            for topic, present in missing:
                await (_grow(admin, topic, present) if present else _create(admin, topic))
            await asyncio.sleep(_SETTLE_S)


def _missing(wanted: Iterable[Topic], partitions: Mapping[str, int]) -> list[tuple[Topic, int]]:
    """Return the topics that need work, each with the partitions that it has, 0 if it is not there."""
    present = [(topic, partitions.get(topic.name, 0)) for topic in wanted]
    for topic, count in present:
        if topic.keyed and count not in (0, topic.partitions):
            raise PartitionsDiffer(
                f"{topic.name} has {count} partitions, not {topic.partitions}, and keeps them: with another number "
                "the sessions that are under way would move to partitions whose transcribers do not know them"
            )
    return [(topic, count) for topic, count in present if count < topic.partitions]


async def _await(broker: Broker) -> None:
    while True:
        try:
            return await broker.reach()
        except KafkaConnectionError as error:
            log.info("waiting for Kafka: %s", error)
            await asyncio.sleep(_RETRY_S)


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
