"""Readiness checks return False for anything but a ready service, and never raise."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from whisperline_local import probes


class Answers(BaseHTTPRequestHandler):
    """Answers `/ready` with 200 and everything else with 503."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names them
        """Log nothing."""


@pytest.fixture
def server_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that accepts connections and never answers; probes are impatient here."""
    monkeypatch.setattr(probes, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_http(server_port: int, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only status 200 counts as ready, and a proxy in the environment is not used."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    assert await probes.http_ok(server_port, "/ready")
    assert not await probes.http_ok(server_port, "/other")
    assert not await probes.http_ok(closed_port, "/ready")


async def test_services_that_do_not_answer_are_not_ready(silent_port: int) -> None:
    """A service that accepts connections but does not answer is not ready after the limit."""
    assert not await probes.http_ok(silent_port, "/ready")
    assert not await probes.kafka_ok(f"127.0.0.1:{silent_port}")
    assert not await probes.postgres_ok(f"postgresql://postgres@127.0.0.1:{silent_port}/postgres")


async def test_services_that_are_not_there_are_not_ready(closed_port: int) -> None:
    """A refused connection means not ready, and raises nothing."""
    assert not await probes.kafka_ok(f"127.0.0.1:{closed_port}")
    assert not await probes.postgres_ok(f"postgresql://postgres@127.0.0.1:{closed_port}/postgres")
