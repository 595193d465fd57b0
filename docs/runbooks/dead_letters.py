"""Print the newest dead letters of a topic: where each came from and why it was moved aside.

Run this in a pod of persistence, which has the settings for Kafka. NAME must be a user that may read the topic:

    kubectl exec -i deployment/whisperline-persistence -- python - TOPIC [NAME PASSWORD] < docs/runbooks/dead_letters.py
"""

import asyncio
import sys
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from whisperline_persistence.settings import Settings

NEWEST = 20


async def main(topic: str, name: str | None = None, password: str | None = None) -> None:
    """Print the newest records of the topic, which has one partition."""
    options: dict[str, Any] = Settings.read().broker.client_options()
    if name is not None:
        options |= {"sasl_plain_username": name, "sasl_plain_password": password}
    async with AIOKafkaConsumer(topic, **options) as consumer:
        at = TopicPartition(topic, 0)
        bounds = [await consumer.beginning_offsets([at]), await consumer.end_offsets([at])]
        first, end = max(bounds[0][at], bounds[1][at] - NEWEST), bounds[1][at]
        consumer.seek(at, first)
        for offset in range(first, end):
            show(offset, dict((await consumer.getone(at)).headers))


def show(offset: int, headers: dict[str, bytes]) -> None:
    """Print the origin and the reason of one dead letter."""
    reason, topic, partition, origin = (
        headers.get(f"dead_letter.{field}", b"?").decode() for field in ("reason", "topic", "partition", "offset")
    )
    print(f"{offset}: from {topic}, partition {partition}, offset {origin}: {reason}")  # noqa: T201 - a command


asyncio.run(main(*sys.argv[1:]))
