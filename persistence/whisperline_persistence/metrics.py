"""What the process tells about itself: Prometheus metrics, and whether it lives and is ready."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from prometheus_client import Counter, Gauge, Histogram, MetricsHandler
from whisperline_contracts import Final

FINALS = Counter("whisperline_persistence_finals_total", "Finals, by what the database did with them", ["outcome"])
DEAD_LETTERS = Counter("whisperline_persistence_dead_letters_total", "Records sent to the dead letters")
FAILURES = Counter("whisperline_persistence_database_failures_total", "Requests that the database did not answer")
DATABASE_UP = Gauge("whisperline_persistence_database_up", "Whether the database answered last")
WRITE_SECONDS = Histogram("whisperline_persistence_write_seconds", "Time of one transaction that was committed")
STORED_AFTER_SECONDS = Histogram(
    "whisperline_persistence_stored_after_seconds",
    "Time from the making of a final until its row was committed",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
LAG = Gauge("whisperline_persistence_lag_records", "Records in the log after the last one read", ["partition"])


def count_finals(events: Iterable[object], new: int) -> None:
    """Note the finals among events that were committed just now, of which `new` were not stored before."""
    made_ms = [event.time_ms for event in events if isinstance(event, Final)]
    FINALS.labels("stored").inc(new)
    FINALS.labels("already_stored").inc(len(made_ms) - new)
    for time_ms in made_ms:
        STORED_AFTER_SECONDS.observe(max(0.0, time.time() - time_ms / 1000))


_BEAT_S = 1.0
_DEAD_AFTER_S = 30.0  # without a beat of the event loop


@dataclass
class Health:
    """What the probes answer from. Written by the event loop, read by the probes' threads."""

    assigned: bool = False  # a member of the group, with its share of the partitions
    database_up: bool = False  # it answered last
    beat_s: float = 0.0  # when the event loop last turned, on the monotonic clock

    def problem(self, path: str) -> str | None:
        """Return why the probe at `path` fails, or None if it does not."""
        if time.monotonic() - self.beat_s > _DEAD_AFTER_S:
            return "the event loop does not turn"
        if path == "/live":
            return None
        if not self.assigned:
            return "no partitions of the log are assigned yet"
        return None if self.database_up else "the database does not answer"

    def database_answered(self, answered: bool) -> None:
        """Note whether the database answered."""
        self.database_up = answered
        DATABASE_UP.set(answered)


@asynccontextmanager
async def serve(health: Health, host: str, port: int) -> AsyncIterator[int]:
    """Serve /metrics, /ready and /live from a thread, so that they answer while the event loop does not.

    Yields the port. Raises `OSError` if it is taken.
    """
    server = ThreadingHTTPServer((host, port), _handler(health))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    beats = asyncio.create_task(_beat(health))
    try:
        yield server.server_port
    finally:
        beats.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def _beat(health: Health) -> None:
    while True:
        health.beat_s = time.monotonic()
        await asyncio.sleep(_BEAT_S)


def _handler(health: Health) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            path = self.path.partition("?")[0]
            if path == "/metrics":
                super().do_GET()
            elif path in ("/live", "/ready"):
                problem = health.problem(path)
                self._answer(503 if problem else 200, problem or "ok")
            else:
                self._answer(404, "there are /metrics, /ready and /live here")

        def _answer(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
