"""One socket's life: audio out from the position that the gateway tells, messages in until it closes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from whisperline_client import events
from whisperline_client.errors import RETRIABLE_HTTP_STATUS, ConnectionLost, GatewayRefused, StreamError
from whisperline_client.options import is_loopback

_OPEN_TIMEOUT_S = 10.0
_PING_S = 10.0
_PONG_LIMIT_S = 20.0


@asynccontextmanager
async def open_socket(url: str) -> AsyncIterator[ClientConnection]:
    """Connect to `/v1/listen`. Raises `ConnectionLost`, or `GatewayRefused` for an HTTP error that will stay."""
    opening = connect(
        url,
        compression=None,  # speech does not compress, and a gateway has a thousand sockets
        proxy=None if is_loopback(url) else True,
        open_timeout=_OPEN_TIMEOUT_S,
        ping_interval=_PING_S,
        ping_timeout=_PONG_LIMIT_S,
        close_timeout=1,
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        raise _refused_by_status(error.response.status_code, url) from error
    except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as error:
        raise ConnectionLost(f"{_host(url)} cannot be reached: {error or type(error).__name__}") from error
    try:
        yield socket
    finally:
        await socket.close()


async def receive(socket: ClientConnection, deliver: Callable[[events.Message], Coroutine[None, None, None]]) -> None:
    """Deliver every message until the session's normal close. Raises `StreamError` when it ends otherwise."""
    fault: events.Fault | None = None
    summarised = False
    try:
        while True:
            message = events.decode(await socket.recv())
            if isinstance(message, events.Fault):
                fault = message
            elif message is not None:
                summarised = summarised or isinstance(message, events.Metadata)
                await deliver(message)
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        if not (summarised and code == 1000):  # 1000: normal closure
            raise _closed_early(fault, code, closed) from closed


async def send_control(socket: ClientConnection, kind: str) -> None:
    """Send `KeepAlive`, `Finalize` or `CloseStream`."""
    await socket.send(json.dumps({"type": kind}))


async def first_to_end(*works: Coroutine[None, None, None]) -> None:
    """Run all until one ends; cancel the others; raise what the first raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _closed_early(fault: events.Fault | None, code: int, closed: ConnectionClosed) -> StreamError:
    if fault is not None:
        return GatewayRefused(fault.code, fault.message, code)
    reason = closed.rcvd.reason if closed.rcvd is not None and closed.rcvd.reason else "no reason given"
    lost = ConnectionLost(f"the gateway closed with {code}: {reason}")
    return lost if GatewayRefused("", "", code).retriable else GatewayRefused(f"CLOSE_{code}", reason, code)


def _refused_by_status(status: int, url: str) -> StreamError:
    message = f"{_host(url)} answered HTTP {status} instead of opening a WebSocket; is it a Whisperline gateway?"
    return ConnectionLost(message) if status in RETRIABLE_HTTP_STATUS else GatewayRefused(f"HTTP_{status}", message)


def _host(url: str) -> str:
    return url.partition("/v1/listen")[0]
