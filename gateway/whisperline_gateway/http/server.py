"""uvicorn, with what a gateway needs and it does not do.

- At SIGTERM connections are asked to come back, by message and close code, before sockets are closed.
- A socket whose client does not read can be dropped; a plain close would wait for that client for ever.
- A message that breaks the protocol (too big, not UTF-8) is answered with an Error before the close, and what the
  client is still sending is read and thrown away for a while: closing at once would reset the connection, and
  the client would not see why.
"""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from whisperline_gateway import messages, metrics
from whisperline_gateway.errors import ClientError, CloseCode
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.settings import Settings
from whisperline_gateway.wire import ABORT

_LINGER_S = 5.0
_LINGER_BYTES = 256 * 1024 * 1024


class ListenProtocol(WebSocketsSansIOProtocol):
    """One socket."""

    _lingering: asyncio.TimerHandle | None = None
    _thrown_away_bytes = 0

    async def run_asgi(self) -> None:
        """Run the application; then give the close handshake its time, and no more."""
        cast("dict[str, Any]", self.scope["extensions"])[ABORT] = self.transport.abort
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
        self._thrown_away_bytes += len(data)
        if self._thrown_away_bytes > _LINGER_BYTES:
            self.transport.abort()

    def eof_received(self) -> None:
        """Close when the client has."""
        if self.conn.parser_exc is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def handle_parser_exception(self) -> None:
        """Answer a broken message with an Error and the close frame, then linger."""
        close = self.conn.close_sent
        failure = broken_message(close.code if close else CloseCode.PROTOCOL_ERROR, self.config.ws_max_size)
        metrics.ERRORS.labels(failure.code).inc()
        text = messages.encode(messages.error(failure), -1).encode()
        self.transport.write(Frame(Opcode.TEXT, text).serialize(mask=False))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.queue.put_nowait({"type": "websocket.disconnect", "code": failure.close_code, "reason": failure.code})
        self.close_sent = True
        self._lingering = self.loop.call_later(_LINGER_S, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def broken_message(close_code: int, max_frame_bytes: int) -> ClientError:
    """Return the error of a message that the WebSocket layer refuses."""
    match close_code:
        case CloseCode.TOO_BIG:
            message = f"A message is larger than {max_frame_bytes} bytes."
            return ClientError("FRAME_TOO_LARGE", CloseCode.TOO_BIG, message, "Send the audio in smaller frames.")
        case CloseCode.INVALID_TEXT:
            message = "A text message is not UTF-8."
            return ClientError("NOT_UTF8", CloseCode.INVALID_TEXT, message, "Send audio in binary frames.")
        case _:
            message = "The WebSocket protocol (RFC 6455) was broken."
            return ClientError("PROTOCOL", CloseCode.PROTOCOL_ERROR, message, "Use a WebSocket library.")


class Server(uvicorn.Server):
    """uvicorn's server, which drains the gateway before it closes sockets."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then close what is left."""
        for server in self.servers:
            server.close()
        await self._gateway.drain()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take signals, and do not raise them again at the end as uvicorn does: what is around it must still end."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()


def server_config(app: Any, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration: one worker, its own log only from warnings on, as it logs queries (tokens)."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws=ListenProtocol,
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
