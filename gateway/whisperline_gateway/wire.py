"""The sending side of one socket: messages in frames, with a deadline, and the close."""

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from whisperline_gateway import errors, messages, metrics
from whisperline_gateway.errors import ClientError, CloseCode
from whisperline_gateway.outbox import Outbox, OutboxFull

ABORT = "whisperline.abort"  # the scope's extension that drops the socket at once, unwritten bytes and all
_MAX_REASON_BYTES = 120  # of a close frame, which has 123


class Gone(Exception):
    """The client has closed the socket, or lost it."""


class Wire:
    """Writes an outbox to a socket."""

    def __init__(self, socket: WebSocket, outbox: Outbox, timeout_s: float) -> None:
        self._socket = socket
        self._outbox = outbox
        self._timeout_s = timeout_s

    async def write(self) -> None:
        """Write every message until the outbox is closed. Raises `Gone`, and `ClientError` SLOW_CLIENT."""
        sequence_id = 0
        while (message := await self._outbox.next()) is not None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._socket.send_text(messages.encode(message, sequence_id))
            except TimeoutError:
                raise errors.slow_client(self._timeout_s) from None
            except (WebSocketDisconnect, RuntimeError) as error:
                raise Gone from error
            metrics.SENT.labels(message["type"]).inc()
            sequence_id += 1

    async def say_goodbye(self, writer: "asyncio.Task[bool]", failure: ClientError | None) -> None:
        """Let `writer` write what is left, the error if there is one, and close; drop a client that takes too long."""
        if failure is not None:
            with suppress(OutboxFull):
                self._outbox.put(messages.error(failure))
        self._outbox.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                if await writer:
                    await close(self._socket, failure)
                    return
        self.abort()

    def abort(self) -> None:
        """Drop the socket, with all that waits in it."""
        abort = self._socket.scope["extensions"].get(ABORT)
        if abort is not None:
            abort()


async def close(socket: WebSocket, failure: ClientError | None) -> None:
    """Send the close frame; nothing happens if the client was faster."""
    code = CloseCode.NORMAL if failure is None else failure.close_code
    reason = "" if failure is None else f"{failure.code}: {failure.message}"
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"))


async def refuse(socket: WebSocket, failure: ClientError) -> None:
    """Tell the client of an accepted socket why it is not served, and close."""
    metrics.ERRORS.labels(failure.code).inc()
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(messages.encode(messages.error(failure), 0))
    await close(socket, failure)
