"""`python -m whisperline_persistence` stores transcripts; `… migrate` brings the database's schema up to date."""

import argparse
import asyncio
import logging
import signal
import sys

from whisperline_contracts.broker import BrokerRefused
from whisperline_contracts.settings import WrongSettings

from whisperline_persistence import metrics
from whisperline_persistence.batch import TooManyDeadLettersError
from whisperline_persistence.consumer import Consumer
from whisperline_persistence.migrate import migrate
from whisperline_persistence.settings import Settings
from whisperline_persistence.store import Store

log = logging.getLogger("whisperline_persistence")

_CONNECTIONS = 2  # one writes; one more, so that a probe does not wait for it
_CANCEL_S = 2.0


def main() -> int:
    """Run the command and return the exit code: 0 stopped as told, 1 gave up, 2 a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m whisperline_persistence", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "migrate"], default="run")
    command = parser.parse_args().command
    try:
        settings = Settings.read()
    except WrongSettings as error:
        print(error, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return _migrate(settings) if command == "migrate" else asyncio.run(_run(settings))


def _migrate(settings: Settings) -> int:
    try:
        version = migrate(settings.database_url.get_secret_value(), settings.migrate_wait_ms / 1000)
    except TimeoutError as error:
        log.error("%s", error)
        return 1
    log.info("the schema is at version %s", version)
    return 0


async def _run(settings: Settings) -> int:
    """Store transcripts until SIGTERM or SIGINT. Probes start first and end last, so that they tell of both ends."""
    stop, health = asyncio.Event(), metrics.Health()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        metrics.serve(health, settings.metrics_host, settings.metrics_port) as port,
        Store.open(settings.database_url.get_secret_value(), _CONNECTIONS) as store,
    ):
        log.info("probes and metrics at http://%s:%d/metrics", settings.metrics_host, port)
        running = asyncio.create_task(Consumer(settings, store, health, stop).run())
        return await _finish(running, stop, settings.shutdown_ms / 1000)


async def _finish(running: asyncio.Task[None], stop: asyncio.Event, shutdown_s: float) -> int:
    """Wait until `running` ends of itself, or for `shutdown_s` after `stop` was set."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait({running}, timeout=shutdown_s)
    if not running.done():
        log.warning("stopping with a batch not stored: it was not committed, so it will be read again")
        running.cancel()
        await asyncio.wait({running}, timeout=_CANCEL_S)
        return 0
    try:
        running.result()
    except (TooManyDeadLettersError, BrokerRefused) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
