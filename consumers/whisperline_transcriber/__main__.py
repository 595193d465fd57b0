"""`python -m whisperline_transcriber`: run until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import signal
import socket
import sys
import uuid

import uvloop
from aiokafka.errors import KafkaConnectionError
from whisperline_contracts.broker import BrokerRefused
from whisperline_contracts.settings import WrongSettings

from whisperline_transcriber.health import Heart, serve_health
from whisperline_transcriber.log.consumer import TooManyDeadLetters, Transcriber
from whisperline_transcriber.settings import Settings

log = logging.getLogger("whisperline_transcriber")

HAND_OVER_S = 5.0  # to commit and leave the group, behind the drain
CANCEL_S = 0.5


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    transcriber = Transcriber(settings, owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    async with serve_health(settings.metrics_host, settings.metrics_port, lambda: transcriber.ready, Heart()):
        running = asyncio.create_task(transcriber.run(stop))
        await _finish(running, stop, settings.drain_deadline_s + HAND_OVER_S)


async def _finish(running: "asyncio.Task[None]", stop: asyncio.Event, limit_s: float) -> None:
    """Wait until `running` ends of itself, or for `limit_s` after `stop` was set: Kafka may be away, or rebalance."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait({running}, timeout=limit_s)
    if running.done():
        return running.result()
    log.warning("stopping without a last commit: what is not decided the next owner does again")
    while not running.done():
        running.cancel()  # more than once: each thing that it closes may wait for Kafka
        await asyncio.wait({running}, timeout=CANCEL_S)
    return None


def main() -> int:
    """Run the transcriber. Exit status: 0 stopped as asked, 1 no Kafka, or dead letters, 2 wrong settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read()
    except WrongSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        uvloop.run(_run(settings))
    except (TooManyDeadLetters, BrokerRefused, KafkaConnectionError) as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
