"""Run the command of the runbook WhisperlineDeadLetters on a real Kafka."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from rendering import REPOSITORY
from stacks import local_settings
from whisperline_contracts.dead_letter import DeadLetter
from whisperline_contracts.topics import AUDIO_CHUNKS, AUDIO_CHUNKS_DEAD
from whisperline_local import Stack

SCRIPT = REPOSITORY / "docs/runbooks/dead_letters.py"


@pytest.mark.integration
async def test_the_reasons_of_dead_letters_are_printed(tmp_path: Path) -> None:
    """The script prints the reason and the origin of each dead letter."""
    settings = local_settings(tmp_path, name="charts, dead letters")
    async with Stack(settings, ["kafka"]):
        bootstrap = f"127.0.0.1:{settings.ports.kafka}"
        letters = [DeadLetter(f"reason {number}", AUDIO_CHUNKS, 3, number, "transcriber") for number in range(3)]
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for letter in letters:
                await producer.send_and_wait(AUDIO_CHUNKS_DEAD, b"?", headers=letter.headers(()))
        printed = await run(AUDIO_CHUNKS_DEAD, bootstrap)
    expected = [f"{n}: from audio_chunks, partition 3, offset {n}: reason {n}" for n in range(3)]
    assert printed.splitlines() == expected


async def run(topic: str, bootstrap: str) -> str:
    """Run the script from its standard input, as it is run in a pod."""
    given = {"KAFKA_BOOTSTRAP": bootstrap, "DATABASE_URL": "postgresql://nobody@127.0.0.1/none"}
    env = os.environ | {f"WHISPERLINE_PERSISTENCE_{name}": value for name, value in given.items()}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-", topic, stdin=pipe, stdout=pipe, env=env)
    said, _ = await asyncio.wait_for(process.communicate(SCRIPT.read_bytes()), 60)
    return said.decode()
