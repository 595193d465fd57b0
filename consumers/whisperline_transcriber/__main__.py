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

from whisperline_transcriber.health import serve_health
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.transcriber import TooManyDeadLetters, Transcriber


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    transcriber = Transcriber(settings, owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with serve_health(settings.metrics_host, settings.metrics_port, lambda: transcriber.ready):
        await transcriber.run(stop)


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
        logging.getLogger(__name__).critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
