"""Describe the records of the dead-letter topics: an unusable record with the reason and its origin in headers."""

from dataclasses import dataclass

from whisperline_contracts.audio import Header


@dataclass(frozen=True)
class DeadLetter:
    """The reason why a record could not be used, and its origin."""

    reason: str
    topic: str
    partition: int
    offset: int
    consumer: str  # the group that could not use it

    def headers(self, original: tuple[Header, ...]) -> list[Header]:
        """Return the dead letter's headers: the record's own `headers`, then the reason and the origin."""
        origin = {
            "dead_letter.reason": self.reason,
            "dead_letter.topic": self.topic,
            "dead_letter.partition": str(self.partition),
            "dead_letter.offset": str(self.offset),
            "dead_letter.consumer": self.consumer,
        }
        return [*original, *((name, value.encode()) for name, value in origin.items())]
