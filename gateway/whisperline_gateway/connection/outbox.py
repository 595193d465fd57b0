"""Messages that wait for one client, and the task that writes them.

Partials and Acks have one place each, where a newer one replaces an older one: a slow client sees fewer of them.
Everything else is kept in order. If too many of these wait, the client is too slow, and its connection ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from opentelemetry import trace
from whisperline_contracts import Final, Finalized, Partial
from whisperline_runtime.tracing import Context, Status, StatusCode, tracer

from whisperline_gateway import errors
from whisperline_gateway.errors import ClientError, OutboxFullError
from whisperline_gateway.protocol.messages import ClientMessage, ServerMessage

TRACER = tracer(__name__)


class Peer(Protocol):
    """The client's end of a connection: a WebSocket, and the protocol that is spoken on it."""

    async def receive(self) -> ClientMessage:
        """Return the client's next message. Raises `ClientDisconnectedError`, or `ClientError` if it is unreadable."""

    async def send(self, message: ServerMessage) -> str:
        """Write a message; return the protocol's name for its type. Raises `ClientDisconnectedError`."""

    async def close(self, failure: ClientError | None) -> None:
        """Close normally, or because of `failure`. Does nothing if the client was faster."""

    def abort(self) -> None:
        """Drop the socket at once, with everything that waits in it."""

    def error_code(self, failure: ClientError) -> str:
        """Return the protocol's code for an error."""


class Envelope(NamedTuple):
    """A message that waits. If it is the text of a traced segment, it carries the trace context of its event."""

    message: ServerMessage
    context: Context | None = None
    queued_ns: int = 0  # since the Unix epoch

    @classmethod
    def of(cls, message: ServerMessage) -> "Envelope":
        """Return a message with the current span's context, if that is recorded and the message is text."""
        span = trace.get_current_span()
        if span.is_recording() and isinstance(message, Partial | Final | Finalized):
            return cls(message, trace.set_span_in_context(span), time.time_ns())
        return cls(message)


class Outbox:
    """Holds the messages of one connection, from any of its tasks to its `SocketWriter`."""

    def __init__(self, limit: int = 256) -> None:
        self.dropped_partials = 0
        self._limit = limit
        self._messages: deque[Envelope] = deque()
        self._partial: Envelope | None = None
        self._ack: Envelope | None = None
        self._closed = False
        self._changed = asyncio.Event()
        self._has_space = asyncio.Event()  # set while at most half the limit waits
        self._has_space.set()

    def put(self, message: ServerMessage) -> None:
        """Add a message that must be written. Raises `OutboxFullError`."""
        if self._closed:
            return
        if len(self._messages) >= self._limit:
            raise OutboxFullError
        self._messages.append(Envelope.of(message))
        self._changed.set()
        if len(self._messages) > self._limit // 2:
            self._has_space.clear()

    def put_last(self, message: ServerMessage) -> None:
        """Add a message behind the Ack and the ordered messages that wait. Raises `OutboxFullError`."""
        if self._ack is not None:
            self.put(self._ack.message)
            self._ack = None
        self.put(message)

    async def wait_for_space(self) -> None:
        """Wait until the outbox is at most half full. For senders of many messages that can afford to wait."""
        await self._has_space.wait()

    def put_partial(self, message: ServerMessage) -> None:
        """Add a partial, in place of the one that waits."""
        if self._partial is not None:
            self.dropped_partials += 1
        self._partial = Envelope.of(message)
        self._changed.set()

    def drop_partial(self) -> None:
        """Forget the partial that waits: its final has come."""
        self._partial = None

    def put_ack(self, message: ServerMessage) -> None:
        """Add an Ack, in place of the one that waits."""
        self._ack = Envelope(message)
        self._changed.set()

    def close(self) -> None:
        """Accept no more; `next` returns None when everything has been taken out."""
        self._closed = True
        self._changed.set()

    async def next(self) -> Envelope | None:
        """Return the next message to write, or None when the outbox is closed and empty."""
        while True:
            if self._messages:
                if len(self._messages) <= self._limit // 2:
                    self._has_space.set()
                return self._messages.popleft()
            if self._partial is not None:
                partial, self._partial = self._partial, None
                return partial
            if self._ack is not None:
                ack, self._ack = self._ack, None
                return ack
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()


class SocketWriter:
    """Writes an outbox to a client, in a task that lives as long as the `async with`.

    The task outlives the connection's other tasks, because the error that ends them must still be written. An error
    that ends the writing early goes to `on_failure`: `ClientDisconnectedError`, or `ClientError` SLOW_CLIENT.
    """

    def __init__(self, peer: Peer, outbox: Outbox, timeout_s: float, on_failure: Callable[[Exception], None]) -> None:
        self._peer = peer
        self._outbox = outbox
        self._timeout_s = timeout_s
        self._on_failure = on_failure

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write(), name="write")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)

    async def close(self, failure: ClientError | None) -> None:
        """Write the remaining messages, the error if any, and the close frame; abort the socket after `timeout_s`."""
        if failure is not None:
            with suppress(OutboxFullError):
                self._outbox.put(failure)
        self._outbox.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                if await self._writing:
                    await self._peer.close(failure)
                    return
        except TimeoutError:
            pass
        self._peer.abort()

    async def _write(self) -> bool:
        """Write until the outbox is closed; return False if the client takes no more."""
        try:
            await self._write_all()
        except Exception as error:  # the client's fault or a defect: the connection tells them apart
            self._on_failure(error)
            return False
        return True

    async def _write_all(self) -> None:
        while (envelope := await self._outbox.next()) is not None:
            span = None
            if envelope.context is not None:
                span = TRACER.start_span("send", envelope.context, start_time=envelope.queued_ns)
            try:
                async with asyncio.timeout(self._timeout_s):
                    kind = await self._peer.send(envelope.message)
                if span is not None:
                    span.update_name(f"send {kind}")
            except TimeoutError:
                if span is not None:
                    span.set_status(Status(StatusCode.ERROR, "the client does not read"))
                raise errors.slow_client(self._timeout_s) from None
            finally:
                if span is not None:
                    span.end()
