"""Tells a client which of its audio is durable, not more often than it needs to know."""

import asyncio
import time

from whisperline_gateway import messages
from whisperline_gateway.outbox import Outbox
from whisperline_gateway.tokens import TokenIssuer


class Receipts:
    """The Acks of one connection, whose audio begins at `position`, each with a resume token."""

    def __init__(self, outbox: Outbox, issuer: TokenIssuer, sample_rate: int, position: int, interval_s: float) -> None:
        self._outbox = outbox
        self._issuer = issuer
        self._sample_rate = sample_rate
        self._interval_s = interval_s
        self._told = self._stored = position
        self._timer: asyncio.TimerHandle | None = None

    def token(self, position: int) -> str:
        """Return a fresh resume token."""
        return self._issuer.issue(position, time.time())

    def stored(self, position: int) -> None:
        """Note that the audio before `position` is durable; tell it now, or when the interval has passed."""
        self._stored = position
        if self._timer is None:
            self.tell()
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._again)

    def tell(self) -> None:
        """Tell what has not been told."""
        if self._stored > self._told:
            self._told = self._stored
            self._outbox.put_ack(messages.ack(self.token(self._told), self._told, self._sample_rate))

    def stop(self) -> None:
        """Tell no more by itself."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = None
        if self._stored > self._told:
            self.stored(self._stored)
