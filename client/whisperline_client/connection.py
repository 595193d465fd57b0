"""Open one WebSocket to one gateway, read it until it closes, and turn a failure into an error of this package."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from whisperline_client import events
from whisperline_client.errors import (
    RETRIABLE_CLOSE_CODES,
    RETRIABLE_HTTP_STATUS,
    ConnectionLost,
    GatewayRefused,
)
from whisperline_client.options import is_loopback

OPEN_TIMEOUT_S = 10.0
PING_INTERVAL_S = 10.0
PONG_TIMEOUT_S = 20.0
NORMAL_CLOSURE, ABNORMAL_CLOSURE = 1000, 1006  # RFC 6455, section 7.4.1


@asynccontextmanager
async def open_socket(url: str) -> AsyncIterator[ClientConnection]:
    """Connect to `/v1/listen`. Raises `ConnectionLost`, or `GatewayRefused` for an HTTP error that will persist."""
    gateway = url.partition("/v1/listen")[0]
    opening = connect(
        url,
        compression=None,  # speech hardly compresses, and it costs a gateway memory per socket
        proxy=None if is_loopback(url) else True,
        open_timeout=OPEN_TIMEOUT_S,
        ping_interval=PING_INTERVAL_S,
        ping_timeout=PONG_TIMEOUT_S,
        close_timeout=1,
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        status = error.response.status_code
        reason = f"{gateway} answered HTTP {status} instead of opening a WebSocket; is it a Whisperline gateway?"
        if status in RETRIABLE_HTTP_STATUS:
            raise ConnectionLost(reason) from error
        raise GatewayRefused(f"HTTP_{status}", reason) from error
    except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as error:
        raise ConnectionLost(f"{gateway} cannot be reached: {error or type(error).__name__}") from error
    try:
        yield socket
    finally:
        await socket.close()


async def receive(socket: ClientConnection) -> AsyncIterator[events.Message]:
    """Yield every message until the gateway has summarised the session and closed the socket.

    Raises `StreamError` when the socket closes in any other way. A `Fault` is not yielded: it explains the close
    that follows it, and becomes its error.
    """
    fault: events.Fault | None = None
    summarised = False
    try:
        while True:
            message = events.decode(await socket.recv())
            if isinstance(message, events.Fault):
                fault = message
            elif message is not None:
                summarised = summarised or isinstance(message, events.Metadata)
                yield message
    except ConnectionClosed as closed:
        frame = closed.rcvd
        code = frame.code if frame is not None else ABNORMAL_CLOSURE
        reason = (frame.reason if frame is not None else "") or "no reason given"
        # A normal closure without a summary counts as a loss, because finals may be missing.
        if summarised and code == NORMAL_CLOSURE:
            return
        if fault is not None:
            raise GatewayRefused(fault.code, fault.message, code) from closed
        if code in RETRIABLE_CLOSE_CODES:
            raise ConnectionLost(f"the gateway closed with {code}: {reason}") from closed
        raise GatewayRefused(f"CLOSE_{code}", reason, code) from closed


async def send_control(socket: ClientConnection, kind: Literal["KeepAlive", "Finalize", "CloseStream"]) -> None:
    """Send a control message."""
    await socket.send(json.dumps({"type": kind}))
