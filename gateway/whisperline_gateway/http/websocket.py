"""A WebSocket as a connection's peer, served from its handshake to its close."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.websockets import WebSocket, WebSocketDisconnect

from whisperline_gateway import metrics
from whisperline_gateway.connection.connection import Connection, Services
from whisperline_gateway.errors import ClientDisconnectedError, ClientError
from whisperline_gateway.protocol.messages import ClientMessage, ClientProtocol, Open, ServerMessage
from whisperline_gateway.registry import Registry

TRANSPORT = "whisperline.transport"  # the extension of a scope that holds its `Transport`


@dataclass
class Transport:
    """A WebSocket below ASGI: its server sets `abort`, and its application `protocol`."""

    abort: Callable[[], None]  # drops the socket at once, with everything that waits in it
    protocol: ClientProtocol | None = None  # what the client speaks, once it is known


class WebSocketPeer:
    """Speaks one protocol on one WebSocket. See `connection.outbox.Peer`."""

    def __init__(self, socket: WebSocket, protocol: ClientProtocol) -> None:
        self._socket = socket
        self._protocol = protocol

    async def receive(self) -> ClientMessage:
        """Return the client's next message. Raises `ClientDisconnectedError`, or `ClientError` if it is unreadable."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientDisconnectedError
        data: bytes | None = message.get("bytes")
        if data is None:
            return self._protocol.decode_text(message["text"])
        metrics.RECEIVED_BYTES.inc(len(data))
        return self._protocol.decode_binary(data)

    async def send(self, message: ServerMessage) -> str:
        """Write a message; return the protocol's name for its type. Raises `ClientDisconnectedError`."""
        frame = self._protocol.encode(message)
        try:
            await self._socket.send_text(frame.text)
        except (WebSocketDisconnect, RuntimeError) as error:  # what starlette raises depends on who closed
            raise ClientDisconnectedError from error
        metrics.SENT.labels(frame.type).inc()
        return frame.type

    async def close(self, failure: ClientError | None) -> None:
        """Send the close frame. Does nothing if the client was faster."""
        frame = self._protocol.close_frame(failure)
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(frame.code, frame.reason)

    def abort(self) -> None:
        """Drop the socket at once, with everything that waits in it."""
        transport: Transport | None = self._socket.scope["extensions"].get(TRANSPORT)
        if transport is not None:
            transport.abort()

    def error_code(self, failure: ClientError) -> str:
        """Return the protocol's code for an error."""
        return self._protocol.error_code(failure)


async def serve_socket(socket: WebSocket, protocol: ClientProtocol, registry: Registry, services: Services) -> None:
    """Serve one WebSocket. A page of a foreign origin is refused before the handshake, with HTTP 403."""
    allowed = services.settings.allowed_origins
    if not is_origin_allowed(socket.headers.get("origin"), socket.headers.get("host"), allowed):
        await socket.close(WS_1008_POLICY_VIOLATION)
        return
    transport: Transport | None = socket.scope["extensions"].get(TRANSPORT)
    if transport is not None:
        transport.protocol = protocol
    # An error in the query is sent on the open socket, because a browser hides the answer to a failed handshake.
    try:
        request: Open | ClientError = protocol.open(parse_qs(socket.url.query, keep_blank_values=True))
    except ClientError as error:
        request = error
    resume = None if isinstance(request, ClientError) else request.resume
    session_id = resume.session_id if resume is not None else str(uuid4())
    handshake = protocol.handshake(session_id, socket.scope["subprotocols"])
    await socket.accept(handshake.subprotocol, handshake.headers)
    peer = WebSocketPeer(socket, protocol)
    try:
        if isinstance(request, ClientError):
            raise request
        connection = Connection(peer, session_id, request, services, socket.headers.get("traceparent"))
        with registry.admit(connection):
            await connection.run()
    except ClientError as failure:
        metrics.ERRORS.labels(peer.error_code(failure)).inc()
        with suppress(ClientDisconnectedError):
            await peer.send(failure)
        await peer.close(failure)


def is_origin_allowed(origin: str | None, host: str | None, allowed: tuple[str, ...]) -> bool:
    """Return True if a page of `origin` may connect: it is one of ours, or one that the settings name."""
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return host is not None and urlsplit(origin).netloc.lower() == host.lower()
