"""Create the topics that Kafka lacks and add reply partitions; change nothing else."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

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

_SETTLE_S = 0.1  # wait between checks, because brokers report a change with a delay


async def create_topics(broker: Broker, wanted: Iterable[Topic]) -> None:
    """Create what Kafka lacks of `wanted`; return once it all exists. Any number of processes may do this at once.

    Waits for the broker as long as it takes: the caller bounds it. Raises `BrokerRefusedError`,
    `PartitionsDifferError`, and the `KafkaError`s with which Kafka refuses a topic.
    """
    topics = tuple(wanted)
    # A broker may answer before it has joined its own cluster (NodeNotReadyError).
    async for attempt in retrying((KafkaConnectionError, NodeNotReadyError), what="reaching Kafka"):
        with attempt:
            await broker.reach()
            admin = AIOKafkaAdminClient(**broker.client_options())
            try:
                await admin.start()
                while not await _advance(admin, topics):  # noqa: ASYNC110 - what a broker does sets no event here
                    await asyncio.sleep(_SETTLE_S)
            finally:
                await admin.close()


async def _advance(admin: AIOKafkaAdminClient, wanted: Iterable[Topic]) -> bool:
    """Create missing topics and add missing partitions; return True if nothing was missing."""
    present = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    for topic in wanted:
        count = present.get(topic.name, 0)
        if topic.keyed and count not in (0, topic.partitions):
            raise PartitionsDifferError(
                f"{topic.name} has {count} partitions, not {topic.partitions}, and keeps them: with another number "
                "the sessions that are under way would move to partitions whose transcribers do not know them"
            )
    complete = True
    for topic in wanted:
        count = present.get(topic.name, 0)
        if count >= topic.partitions:
            continue
        complete = False
        if count:
            with suppress(InvalidPartitionsError):  # another process added them first
                await admin.create_partitions({topic.name: NewPartitions(topic.partitions)})
                log.info("raised the partitions of %s from %d to %d", topic.name, count, topic.partitions)
            continue
        new = NewTopic(topic.name, topic.partitions, topic.replication_factor, topic_configs=dict(topic.config))
        for name, code, *message in (await admin.create_topics([new])).topic_errors:
            if code == 0:
                log.info("created %s with %d partitions", topic.name, topic.partitions)
            elif code != TopicAlreadyExistsError.errno:  # another process was quicker
                raise for_code(code)(f"{name}: {message}")
    return complete
