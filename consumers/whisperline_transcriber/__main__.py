"""`python -m whisperline_transcriber`: run until SIGTERM or SIGINT."""

import asyncio
import os
import socket
import sys
import uuid
from contextlib import AsyncExitStack

from whisperline_contracts.topics import AUDIO_CHUNKS_DEAD
from whisperline_runtime.errors import ProcessError
from whisperline_runtime.probes import Probes, serve_probes
from whisperline_runtime.process import Stop, run
from whisperline_runtime.producer import DeadLetters, DurableProducer

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import Triton
from whisperline_transcriber.log.consumer import LogConsumer, kafka_consumer
from whisperline_transcriber.log.progress import ProgressLog
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.log.session_task import Services
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.batcher import VadBatcher
from whisperline_transcriber.stream.vad import VoiceActivity

HAND_OVER_S = 5.0  # to commit and leave the group, after the drain


async def main(settings: Settings, stop: Stop) -> None:
    """Run one transcriber. Resources are opened in the order of need and closed in reverse."""
    consumer: LogConsumer | None = None
    probes = Probes(lambda: consumer.why_not_ready if consumer else "Kafka has not been reached yet")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve_probes(probes, settings.metrics_host, settings.metrics_port))
        async with stop.interrupts():
            await settings.broker.wait_until_reachable(settings.start_timeout_s)
        if stop.is_set():
            return
        producer = await stack.enter_async_context(DurableProducer(settings.broker, "transcriber"))
        triton = await stack.enter_async_context(Triton(settings.triton_url, settings.model, settings.rollout_keep_s))
        try:
            async with asyncio.TaskGroup() as tasks:
                services = Services(
                    settings=settings,
                    publisher=Publisher(producer),
                    progress=ProgressLog(settings.broker, producer, tasks),
                    admission=Admission(triton, settings),
                    vad=VadBatcher(VoiceActivity(settings.vad_model, settings.vad_noise)),
                    owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
                )
                dead_letters = DeadLetters(
                    producer,
                    AUDIO_CHUNKS_DEAD,
                    consumer=settings.group,
                    limit=settings.dead_letters_in_a_row,
                    counter=metrics.DEAD_LETTERS,
                )
                consumer = LogConsumer(kafka_consumer(settings), services, dead_letters, tasks)
                await consumer.run(stop)
        except ExceptionGroup as group:
            # A ProcessError ends the process on purpose and is logged as one line; anything else is a defect.
            wanted = group.subgroup(ProcessError)
            if wanted is None:
                raise
            raise wanted.exceptions[0] from group


if __name__ == "__main__":
    sys.exit(run("transcriber", Settings, main, stop_limit_s=lambda settings: settings.drain_deadline_s + HAND_OVER_S))
