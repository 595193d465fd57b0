"""`python -m whisperline_runtime`: create the missing topics, then exit. See `create_topics`."""

import asyncio
import logging
import sys

from aiokafka.errors import KafkaError
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from whisperline_contracts.topics import topics

from whisperline_runtime.create_topics import create_topics
from whisperline_runtime.errors import PartitionsDifferError, StartupError
from whisperline_runtime.process import Stop, run
from whisperline_runtime.settings import ProcessSettings

log = logging.getLogger("whisperline_runtime.topics")


class Settings(ProcessSettings):
    """The settings of the topics job: environment variables with the prefix WHISPERLINE_TOPICS_."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_TOPICS_")

    audio_partitions: int = Field(default=8, ge=1, le=10_000, description="of audio_chunks: the most transcribers")
    reply_partitions: int = Field(default=8, ge=1, le=10_000, description="of transcriptions: the most gateways")
    replication_factor: int = Field(default=1, ge=1, le=32, description="copies of each record")
    wait_ms: int = Field(default=60_000, ge=0, description="longest wait for Kafka, until everything is done")


async def create(settings: Settings, stop: Stop) -> None:
    """Create the topics. Raises `StartupError` if that fails or takes longer than `wait_ms`."""
    wanted = topics(settings.audio_partitions, settings.reply_partitions, settings.replication_factor)
    try:
        async with stop.interrupts(), asyncio.timeout(settings.wait_ms / 1000):
            await create_topics(settings.broker, wanted)
            log.info("all topics are there: %s", ", ".join(topic.name for topic in wanted))
    except PartitionsDifferError as error:
        raise StartupError(f"WHISPERLINE_TOPICS_AUDIO_PARTITIONS: {error}") from error
    except TimeoutError as error:
        raise StartupError(
            f"the topics are not there: Kafka at {settings.kafka_bootstrap} did not answer in time"
        ) from error
    except KafkaError as error:
        raise StartupError(f"the topics are not there: {error}") from error


def main() -> int:
    """Create the topics. Return the exit status: 0 if all topics exist, 1 if not, 2 if a setting is wrong."""
    return run("whisperline-topics", Settings, create)


if __name__ == "__main__":
    sys.exit(main())
