"""Answer probes and Prometheus: `/health/live`, `/health/ready` and `/metrics`, the same for every process."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

BEAT_S = 1.0
DEAD_AFTER_S = 30.0  # a process whose event loop has not turned for this long counts as dead


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes


class Probes:
    """The probe answers of one process. `ready` returns why the process is not ready, or None if it is.

    A watchdog task beats in the event loop. After `DEAD_AFTER_S` without a beat, the process is neither live nor ready.
    """

    def __init__(self, ready: Callable[[], str | None]) -> None:
        self._ready = ready
        self._beat_s = time.monotonic()

    def answer(self, path: str, accept: str = "") -> Answer:
        """Return the answer to a GET of `path`. `accept` is the Accept header: Prometheus names OpenMetrics there."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return Answer(200, content_type, encode(REGISTRY))
        if path not in ("/health/live", "/health/ready"):
            return _text(404, "there are /health/live, /health/ready and /metrics here")
        if time.monotonic() - self._beat_s > DEAD_AFTER_S:
            return _text(503, f"the event loop has not turned for {DEAD_AFTER_S:g} s")
        problem = self._ready() if path == "/health/ready" else None
        return _text(503, problem) if problem else _text(200, "ok")

    async def beat(self) -> None:
        """Beat until cancelled, to show that the event loop turns."""
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(BEAT_S)


def _text(status: int, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


@asynccontextmanager
async def serve_probes(probes: Probes, host: str, port: int) -> AsyncIterator[int]:
    """Serve `probes` while the context lasts; yield the port, a free one if `port` is 0. Raises `OSError` if taken.

    A separate thread serves them, so that they answer while the event loop is busy.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = probes.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names them
            """Log nothing, because probes come every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="probes", daemon=True).start()
    beating = asyncio.create_task(probes.beat(), name="watchdog")
    try:
        yield server.server_port
    finally:
        beating.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
