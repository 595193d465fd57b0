"""The process's HTTP side door: /live, /ready and /metrics, in a thread of its own so that it answers under load."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@contextmanager
def serve_health(host: str, port: int, ready: Callable[[], bool]) -> Iterator[int]:
    """Serve while the context lasts; yield the port (a free one if `port` is 0)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, generate_latest(), CONTENT_TYPE_LATEST)
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
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
