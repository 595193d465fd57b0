"""uvicorn, with three additions that a gateway needs.

- When the gateway stops, clients are asked to come back, by message and close code, before their sockets are closed.
- A socket whose client does not read can be dropped; a plain close would wait for that client for ever.
- A frame that breaks the WebSocket protocol (too large, not UTF-8) is answered with an error before the close. The
  server then reads and discards the client's data for a while: closing at once would reset the connection, and the
  client would never read the error.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from whisperline_runtime.process import Stop

from whisperline_gateway import metrics
from whisperline_gateway.errors import ClientError
from whisperline_gateway.http.websocket import TRANSPORT, Transport
from whisperline_gateway.registry import Registry
from whisperline_gateway.settings import Settings

_LINGER_S = 5.0
_LINGER_BYTES = 256 * 1024 * 1024


class LingeringProtocol(WebSocketsSansIOProtocol):
    """One socket.

    uvicorn documents the `ws` option, but not the interface of the class that it takes: `conn`, `queue`, `close_sent`,
    `read_paused`, `disconnected` and `handle_parser_exception` are its own. The tests of broken, huge and unread frames
    in tests/http/test_bad_input.py fail if a new version changes them.
    """

    _lingering: asyncio.TimerHandle | None = None
    _discarded_bytes = 0

    async def run_asgi(self) -> None:
        """Run the application, then allow the close handshake a limited time."""
        cast("dict[str, Any]", self.scope["extensions"])[TRANSPORT] = Transport(self.transport.abort)
        try:
            await super().run_asgi()
        finally:
            if not self.disconnected and self._lingering is None:
                self._lingering = self.loop.call_later(self.close_timeout + 1, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Pass data on, unless the connection has failed and only lingers."""
        if self.conn.parser_exc is None:
            super().data_received(data)
            return
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _LINGER_BYTES:
            self.transport.abort()

    def eof_received(self) -> None:
        """Close a connection that only lingers when the client has closed it."""
        if self.conn.parser_exc is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def handle_parser_exception(self) -> None:
        """Answer a broken frame with an error and the close frame, then linger."""
        close = self.conn.close_sent
        failure = broken_frame(close.code if close else CloseCode.PROTOCOL_ERROR, self.config.ws_max_size)
        metrics.ERRORS.labels(failure.code).inc()
        transport: Transport = cast("dict[str, Any]", self.scope["extensions"])[TRANSPORT]
        if transport.protocol is not None:
            text = transport.protocol.broken_frame(failure).text
            self.transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        self.transport.write(b"".join(self.conn.data_to_send()))  # the close frame
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code if close else 1002})
        self.close_sent = True
        self._lingering = self.loop.call_later(_LINGER_S, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def broken_frame(close_code: int, max_frame_bytes: int) -> ClientError:
    """Return the error of a frame that the WebSocket layer refuses with `close_code`."""
    match close_code:
        case CloseCode.MESSAGE_TOO_BIG:
            message = f"A message is larger than {max_frame_bytes} bytes."
            return ClientError("FRAME_TOO_LARGE", message, "Send the audio in smaller frames.")
        case CloseCode.INVALID_DATA:
            return ClientError("NOT_UTF8", "A text message is not UTF-8.", "Send audio in binary frames.")
        case _:
            return ClientError("PROTOCOL", "A frame breaks RFC 6455.", "Use a WebSocket library.")


class Server(uvicorn.Server):
    """uvicorn's server, which stops with the process and drains connections before it closes sockets."""

    def __init__(self, config: uvicorn.Config, registry: Registry, stop: Stop) -> None:
        super().__init__(config)
        self._registry = registry
        self._stop = stop

    async def run_until_stopped(self) -> None:
        """Serve until the process is asked to stop, and every connection is closed."""

        async def exit_when_stopped() -> None:
            await self._stop.wait()
            self.should_exit = True

        watching = asyncio.create_task(exit_when_stopped(), name="stop server")
        try:
            await self.serve()
        finally:
            watching.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then close the remaining sockets."""
        for server in self.servers:
            server.close()
        await self._registry.drain()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `whisperline_runtime.process` takes them."""
        yield


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration. Its access log stays off, because it holds queries, and with them tokens."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws=LingeringProtocol,
        ws_max_size=settings.max_frame_bytes,
        ws_ping_interval=20.0,
        ws_ping_timeout=None,  # a client is judged by what it sends, and a paused socket cannot see its pongs
        ws_per_message_deflate=False,  # speech does not compress, and a window for each of a thousand sockets adds up
        lifespan="off",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
