"""`python -m whisperline_gateway`: run one gateway until SIGTERM or SIGINT."""

import asyncio
import logging
import sys

import uvloop
from whisperline_contracts.settings import WrongSettings

from whisperline_gateway.app import create_app
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.kafka import StartError
from whisperline_gateway.server import Server, server_config
from whisperline_gateway.settings import Settings

log = logging.getLogger("whisperline.gateway")


def main() -> int:
    """Run the gateway; return the exit status: 0 after a signal, 1 if it could not start or had to stop."""
    try:
        settings = Settings.read()
    except WrongSettings as error:
        print(error, file=sys.stderr)  # noqa: T201 - no log yet
        return 1
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    try:
        return uvloop.run(serve(settings))
    except StartError as error:
        log.critical("%s", error)
        return 1


async def serve(settings: Settings) -> int:
    """Serve until a signal comes; return the exit status. Raises `StartError`."""
    stopping = asyncio.Event()
    async with Gateway.open(settings, stopping.set) as gateway:
        server = Server(server_config(create_app(gateway), settings), gateway)
        watcher = asyncio.create_task(_stop_when(stopping, server))
        try:
            log.info(
                "listening on http://%s:%d, events from partition %d", settings.host, settings.port, settings.ordinal
            )
            await server.serve()
        finally:
            watcher.cancel()
    return 1 if stopping.is_set() else 0


async def _stop_when(stopping: asyncio.Event, server: Server) -> None:
    await stopping.wait()
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
