"""The process's HTTP side door: /live, /ready and /metrics, in a thread of its own so that it answers under load."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

BEAT_S = 1.0
DEAD_AFTER_S = 30.0  # without a beat of the event loop


class Heart:
    """Whether the event loop turns."""

    def __init__(self) -> None:
        self.beat_s = time.monotonic()

    @property
    def beats(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self.beat_s < DEAD_AFTER_S

    async def beat(self) -> None:
        """Beat, until cancelled."""
        while True:
            self.beat_s = time.monotonic()
            await asyncio.sleep(BEAT_S)


@asynccontextmanager
async def serve_health(host: str, port: int, ready: Callable[[], bool], heart: Heart) -> AsyncIterator[int]:
    """Serve while the context lasts; yield the port (a free one if `port` is 0)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif self.path in {"/live", "/ready"} and not heart.beats:
                self._send(503, b"the event loop does not turn\n")
            elif self.path == "/live":
                self._send(200, b"live\n")
            elif self.path == "/ready":
                self._send(*((200, b"ready\n") if ready() else (503, b"not ready\n")))
            else:
                self._send(404, b"there is /live, /ready and /metrics\n")

        def _send(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class names them
            return

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True).start()
    beating = asyncio.create_task(heart.beat())
    try:
        yield server.server_address[1]
    finally:
        beating.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
