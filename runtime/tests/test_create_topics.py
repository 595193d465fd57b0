"""On a real Kafka, missing topics are created, some grow, and keyed topics keep their partitions."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError
from whisperline_contracts.topics import Topic
from whisperline_local import LocalSettings, Stack
from whisperline_runtime.broker import Broker
from whisperline_runtime.create_topics import create_topics
from whisperline_runtime.errors import PartitionsDifferError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CACHE = Path(__file__).parents[2] / ".state" / "cache"
LIMIT_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """Kafka with the topics of an embedded stack: eight partitions each."""
    settings = LocalSettings(state_dir=tmp_path_factory.mktemp("stack"), cache_dir=CACHE, port_offset=17_000)
    async with Stack(settings, services=["kafka"]):
        yield Broker(settings.kafka_bootstrap)


@pytest_asyncio.fixture(loop_scope="module")
async def admin(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that reads Kafka's topics."""
    client = AIOKafkaAdminClient(**broker.client_options())
    await client.start()
    yield client
    await client.close()


async def partitions(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[int]:
    described = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    return [described.get(topic.name, 0) for topic in topics]


def a_topic(count: int, **more: object) -> Topic:
    return Topic(f"topic-{uuid.uuid4().hex}", count, **more)  # type: ignore[arg-type]


async def command(broker: Broker, **settings: str) -> tuple[int | None, str]:
    """Run `python -m whisperline_runtime`; return its exit status and its output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERLINE_")}
    chosen = {"kafka_bootstrap": broker.bootstrap, **settings}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "whisperline_runtime"),
        env={**inherited, **{f"WHISPERLINE_TOPICS_{name.upper()}": value for name, value in chosen.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        _, errors = await running.communicate()
    return running.returncode, errors.decode()


async def test_topics_are_created_with_their_settings(broker: Broker, admin: AIOKafkaAdminClient) -> None:
    """Created topics have their partitions at once, and their broker settings."""
    topics = [a_topic(3, config={"retention.ms": "86400000"}), a_topic(1)]
    await create_topics(broker, topics)
    assert await partitions(admin, topics) == [3, 1]
    (answer,) = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topics[0].name, configs={"retention.ms": ""})]
    )
    assert answer.resources[0][4][0][:2] == ("retention.ms", "86400000")


async def test_many_may_create_at_once(broker: Broker, admin: AIOKafkaAdminClient) -> None:
    """Several processes that create the topics at once all succeed."""
    topics = [a_topic(2), a_topic(2)]
    await asyncio.gather(*(create_topics(broker, topics) for _ in range(4)))
    assert await partitions(admin, topics) == [2, 2]


async def test_partitions_are_added_and_never_taken_away(broker: Broker, admin: AIOKafkaAdminClient) -> None:
    """A topic grows when more partitions are requested, and stays when fewer are."""
    small = a_topic(2)
    large = Topic(small.name, 5)
    await create_topics(broker, [small])
    await asyncio.gather(*(create_topics(broker, [large]) for _ in range(3)))
    assert await partitions(admin, [large]) == [5]
    await create_topics(broker, [small])
    assert await partitions(admin, [large]) == [5]


@pytest.mark.parametrize("count", [2, 8])
async def test_a_keyed_topic_keeps_its_partitions(broker: Broker, admin: AIOKafkaAdminClient, count: int) -> None:
    """A request for more or fewer partitions of a keyed topic raises an error, and nothing is changed."""
    topic, other = a_topic(4, keyed=True), a_topic(1)
    await create_topics(broker, [topic])
    with pytest.raises(PartitionsDifferError, match=f"has 4 partitions, not {count}, and keeps them"):
        await create_topics(broker, [other, Topic(topic.name, count, keyed=True)])
    assert await partitions(admin, [topic, other]) == [4, 0]


async def test_one_broker_that_answers_is_enough(broker: Broker, admin: AIOKafkaAdminClient) -> None:
    """The topics are created if one of several broker addresses answers."""
    topic = a_topic(1)
    await create_topics(Broker(f"127.0.0.1:1,{broker.bootstrap}"), [topic])
    assert await partitions(admin, [topic]) == [1]


async def test_what_kafka_refuses_is_raised(broker: Broker) -> None:
    """Kafka's refusal is raised: one broker cannot hold three copies."""
    with pytest.raises(InvalidReplicationFactorError):
        await create_topics(broker, [a_topic(1, replication_factor=3)])


async def test_the_command_is_content_with_what_is_there(broker: Broker) -> None:
    """If all topics exist, the command ends with 0 and lists them."""
    code, errors = await command(broker)
    assert (code, "all topics are there: audio_chunks, session_progress" in errors) == (0, True)


async def test_the_command_names_the_setting_that_cannot_be(broker: Broker) -> None:
    """A different number of audio partitions ends the command with 1 before anything is changed."""
    code, errors = await command(broker, audio_partitions="16", reply_partitions="9")
    assert code == 1
    assert "WHISPERLINE_TOPICS_AUDIO_PARTITIONS: audio_chunks has 8 partitions, not 16" in errors
    assert "raised" not in errors


async def test_the_command_does_not_wait_for_ever(broker: Broker) -> None:
    """If Kafka does not answer in time, the command ends with 1 and one line."""
    code, errors = await command(broker, kafka_bootstrap="127.0.0.1:1", wait_ms="700")
    assert code == 1
    assert "Kafka at 127.0.0.1:1 did not answer in time" in errors
    assert "Traceback" not in errors


async def test_the_command_names_a_wrong_setting(broker: Broker) -> None:
    """A wrong setting ends the command with 2 and one line."""
    expected = "WHISPERLINE_TOPICS_REPLY_PARTITIONS: Input should be greater than or equal to 1\n"
    assert await command(broker, reply_partitions="0") == (2, expected)
