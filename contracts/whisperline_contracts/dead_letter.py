"""Describe the records of the dead-letter topics: the record as it came, with reason and origin in its headers."""

from dataclasses import dataclass

from whisperline_contracts.audio import Header


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be read, with its reason and origin."""

    reason: str
    topic: str
    partition: int
    offset: int
    consumer: str  # the group that could not read it

    def headers(self, original: tuple[Header, ...]) -> list[Header]:
        """Return the headers of the dead letter: those of the record itself, then its reason and origin."""
        origin = {
            "dead_letter.reason": self.reason,
            "dead_letter.topic": self.topic,
            "dead_letter.partition": str(self.partition),
            "dead_letter.offset": str(self.offset),
            "dead_letter.consumer": self.consumer,
        }
        return [*original, *((name, value.encode()) for name, value in origin.items())]
