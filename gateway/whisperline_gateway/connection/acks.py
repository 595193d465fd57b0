"""The Acks that tell a client how much of its audio is durable, normally at most one per interval."""

import asyncio
import time

from whisperline_gateway.connection.outbox import Outbox
from whisperline_gateway.protocol.messages import Ack
from whisperline_gateway.protocol.tokens import TokenIssuer


class AckSender:
    """Sends the Acks of one connection, whose audio begins at `position`, each with a resume token."""

    def __init__(self, outbox: Outbox, issuer: TokenIssuer, sample_rate: int, position: int, interval_s: float) -> None:
        self._outbox = outbox
        self._issuer = issuer
        self._sample_rate = sample_rate
        self._interval_s = interval_s
        self._acked = self._durable = position
        self._timer: asyncio.TimerHandle | None = None  # runs for `interval_s` after each Ack

    def acknowledge(self, position: int) -> None:
        """Send an Ack for the audio before `position`, which is durable: now, or when the interval has passed."""
        self._durable = position
        if self._timer is None:
            self.flush()
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._interval_over)

    def flush(self) -> None:
        """Send the Ack that waits, if one does."""
        if self._durable > self._acked:
            self._acked = self._durable
            token = self._issuer.issue(self._acked, time.time())
            self._outbox.put_ack(Ack(token, self._acked, self._sample_rate))

    def stop(self) -> None:
        """Send nothing more, unless `flush` is called."""
        if self._timer is not None:
            self._timer.cancel()

    def _interval_over(self) -> None:
        self._timer = None
        if self._durable > self._acked:
            self.acknowledge(self._durable)
