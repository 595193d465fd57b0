"""`python -m whisperline_contracts`: create the topics that are missing, then end. See `create_topics`."""

import asyncio
import logging
import sys

from aiokafka.errors import KafkaError
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from whisperline_contracts.broker import BrokerRefused
from whisperline_contracts.create_topics import PartitionsDiffer, create_topics
from whisperline_contracts.settings import DeployableSettings, WrongSettings
from whisperline_contracts.topics import topics

log = logging.getLogger("whisperline_contracts")


class Settings(DeployableSettings):
    """Each setting is an environment variable: its name in capitals after `WHISPERLINE_TOPICS_`."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_TOPICS_")

    audio_partitions: int = Field(default=8, ge=1, le=10_000)  # of audio_chunks: the most transcribers
    reply_partitions: int = Field(default=8, ge=1, le=10_000)  # of transcriptions: the most gateways
    replication_factor: int = Field(default=1, ge=1, le=32)
    wait_ms: int = Field(default=60_000, ge=0)  # for Kafka, until all is done


def main() -> int:
    """Create the topics and return the exit code: 0 they are there, 1 they are not, 2 a setting is wrong."""
    try:
        settings = Settings.read()
    except WrongSettings as error:
        print(error, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # each of its errors comes to us as well
    try:
        asyncio.run(_create(settings))
    except PartitionsDiffer as error:
        log.error("WHISPERLINE_TOPICS_AUDIO_PARTITIONS: %s", error)
        return 1
    except (BrokerRefused, KafkaError, TimeoutError) as error:
        log.error("the topics are not there: %s", error)
        return 1
    return 0


async def _create(settings: Settings) -> None:
    wanted = topics(settings.audio_partitions, settings.reply_partitions, settings.replication_factor)
    try:
        async with asyncio.timeout(settings.wait_ms / 1000):
            await create_topics(settings.broker, wanted)
    except TimeoutError as error:
        raise TimeoutError(f"Kafka at {settings.kafka_bootstrap} did not answer in time") from error
    log.info("all topics are there: %s", ", ".join(topic.name for topic in wanted))


if __name__ == "__main__":
    sys.exit(main())
