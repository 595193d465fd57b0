"""What waits to be written to one socket: bounded, and what may be lost is lost first.

Partials and acks each have one place, where a newer one replaces an older one: a slow client sees fewer of them.
Everything else is kept in order. When `limit` of those wait, the client is too slow to be served at all.
"""

import asyncio
from collections import deque

from whisperline_gateway.messages import Message


class OutboxFull(Exception):
    """As many messages wait as may: the client does not read."""


class Outbox:
    """The messages of one connection, from any task of it to its writer."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._partial: Message | None = None
        self._ack: Message | None = None
        self._closed = False
        self._changed = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.dropped_partials = 0

    def put(self, message: Message) -> None:
        """Add a message that must be written. Raises `OutboxFull`."""
        if self._closed:
            return
        if len(self._messages) >= self._limit:
            raise OutboxFull
        self._messages.append(message)
        self._changed.set()
        if len(self._messages) > self._limit // 2:
            self._roomy.clear()

    async def room(self) -> None:
        """Wait until at most half the limit waits: for a sender of many messages that can wait itself."""
        await self._roomy.wait()

    def put_partial(self, message: Message) -> None:
        """Add a partial, in place of the one that waits."""
        self.dropped_partials += self._partial is not None
        self._partial = message
        self._changed.set()

    def drop_partial(self) -> None:
        """Forget the partial that waits: a final has come for it."""
        self._partial = None

    def put_ack(self, message: Message) -> None:
        """Add an ack, in place of the one that waits."""
        self._ack = message
        self._changed.set()

    def close(self) -> None:
        """Take no more; `next` returns None once all has been taken out."""
        self._closed = True
        self._changed.set()

    async def next(self) -> Message | None:
        """Return the next message to write, or None when the outbox is closed and empty."""
        while True:
            message = self._pop()
            if message is not None or self._closed:
                return message
            self._changed.clear()
            await self._changed.wait()

    def _pop(self) -> Message | None:
        if self._messages:
            if len(self._messages) <= self._limit // 2:
                self._roomy.set()
            return self._messages.popleft()
        if self._partial is not None:
            partial, self._partial = self._partial, None
            return partial
        ack, self._ack = self._ack, None
        return ack
