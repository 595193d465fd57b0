"""`python -m whisperline_gateway`: run one gateway until SIGTERM or SIGINT."""

import asyncio
import logging
import sys

from whisperline_runtime.probes import Probes
from whisperline_runtime.process import Stop, run

from whisperline_gateway.gateway import Gateway
from whisperline_gateway.http.app import create_app
from whisperline_gateway.http.server import Server, server_config
from whisperline_gateway.settings import Settings

log = logging.getLogger(__name__)

_CLOSE_S = 15.0  # after the draining: detached sessions, producers and consumer have deadlines of their own


async def serve(settings: Settings, stop: Stop) -> None:
    """Serve until asked to stop. Raises `StartupError`, and `FatalError` if events can no longer be read."""
    async with Gateway.open(settings, stop) as gateway:
        probes = Probes(lambda: gateway.problem)
        server = Server(server_config(create_app(gateway, probes), settings), gateway.registry, stop)
        beating = asyncio.create_task(probes.beat(), name="watchdog")
        try:
            log.info("serving http://%s:%d, events of partition %d", settings.host, settings.port, settings.ordinal)
            await server.run_until_stopped()
        finally:
            beating.cancel()


def main() -> int:
    """Run the gateway; return the exit status."""
    return run(
        "whisperline-gateway", Settings, serve, stop_limit_s=lambda settings: settings.drain_timeout_s + _CLOSE_S
    )


if __name__ == "__main__":
    sys.exit(main())
