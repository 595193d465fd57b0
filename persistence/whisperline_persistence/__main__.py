"""`python -m whisperline_persistence` stores transcripts; `… migrate` brings the database's schema up to date."""

import argparse
import asyncio
import logging
import sys

from whisperline_runtime.errors import StartupError
from whisperline_runtime.probes import Probes, serve_probes
from whisperline_runtime.process import Stop, run

from whisperline_persistence.consumer import Consumer
from whisperline_persistence.migrate import migrate
from whisperline_persistence.settings import Settings
from whisperline_persistence.store import Store

log = logging.getLogger("whisperline_persistence")

_CONNECTIONS = 2  # one for writing, and one so that a ping does not wait for the writes


async def store_transcripts(settings: Settings, stop: Stop) -> None:
    """Store transcripts until SIGTERM or SIGINT. Probes start first and end last, so they cover start and stop."""
    async with Store.open(settings.database_url.get_secret_value(), _CONNECTIONS) as store:
        consumer = Consumer(settings, store, stop)
        async with serve_probes(Probes(consumer.problem), settings.metrics_host, settings.metrics_port) as port:
            log.info("probes and metrics at http://%s:%d/metrics", settings.metrics_host, port)
            await consumer.run()


async def migrate_schema(settings: Settings, _stop: Stop) -> None:
    """Bring the schema up to date. Raises `StartupError` if the database does not answer in time."""
    url, wait_s = settings.database_url.get_secret_value(), settings.migrate_wait_ms / 1000
    try:
        version = await asyncio.to_thread(migrate, url, wait_s)
    except TimeoutError as error:
        raise StartupError(str(error)) from error
    log.info("the schema is at version %s", version)


def main() -> int:
    """Run the command. Return the exit status: 0 if it stopped as asked, 1 if it gave up, 2 if a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m whisperline_persistence", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "migrate"], default="run")
    command = {"run": store_transcripts, "migrate": migrate_schema}[parser.parse_args().command]
    return run("whisperline-persistence", Settings, command, stop_limit_s=lambda settings: settings.shutdown_ms / 1000)


if __name__ == "__main__":
    sys.exit(main())
