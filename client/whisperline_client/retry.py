"""The waits between attempts to connect, and the deadline for giving up. No I/O."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with equal jitter, up to a deadline.

    The deadline counts from the loss of the connection, and starts anew when the stream makes progress. The shorter
    `start_deadline_s` holds until a gateway has opened the session: no audio can be lost before that.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    first_delay_s: float = 0.2
    max_delay_s: float = 5.0
    deadline_s: float = 120.0
    start_deadline_s: float = 10.0

    def delay_s(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait before attempt number `attempt` (from 0); `chance` is uniform in 0..1."""
        ceiling = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(attempt, 30))
        return ceiling * (0.5 + chance / 2)


@dataclass
class Outage:
    """The time since the stream last made progress, and the attempts to connect since then."""

    policy: RetryPolicy
    session_open: bool = False
    began_s: float | None = None  # None: the connection has not been lost since the last progress
    attempts: int = 0

    @property
    def deadline_s(self) -> float:
        """The longest time that may pass without progress."""
        return self.policy.deadline_s if self.session_open else self.policy.start_deadline_s

    def note_progress(self) -> None:
        """End the outage: the next loss of the connection begins another one."""
        self.began_s = None
        self.attempts = 0

    def next_delay_s(self, now_s: float, chance: float) -> float | None:
        """Count an attempt, and return the seconds to wait before it, or None if it would miss the deadline."""
        if self.began_s is None:
            self.began_s = now_s
        delay_s = self.policy.delay_s(self.attempts, chance)
        self.attempts += 1
        return delay_s if now_s + delay_s - self.began_s <= self.deadline_s else None
