"""Which records of `transcriptions` are stored, which are passed over, and which cannot be read. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from whisperline_contracts import UnreadableMessage, decode_event

from whisperline_persistence.store import StoredEvent

Record: TypeAlias = ConsumerRecord  # of bytes: key and value, each possibly None


class Entry(NamedTuple):
    """A record whose event is to be stored."""

    record: Record
    event: StoredEvent


class Rejected(NamedTuple):
    """A record that goes to the dead letters."""

    record: Record
    reason: str

    def __str__(self) -> str:
        return f"{self.record.topic}[{self.record.partition}] offset {self.record.offset}: {self.reason}"


class TooManyDeadLettersError(Exception):
    """So many records in a row were no good that the fault is not theirs. Nothing of their batch was committed."""


class Streak:
    """Counts dead letters in a row, and raises `TooManyDeadLettersError` at the `limit`-th."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._length = 0

    def good(self) -> None:
        """Note a record that was in order."""
        self._length = 0

    def bad(self, rejected: Rejected) -> Rejected:
        """Note a record that was not, and return it."""
        self._length += 1
        if self._length >= self._limit:
            raise TooManyDeadLettersError(
                f"{self._length} dead letters in a row, the last is {rejected}. Either the producers or this process"
                " have a release that does not fit: deploy one that does, then start this process again."
            )
        return rejected


@dataclass
class Batch:
    """Records that were read together: they are stored together, and their offsets committed after that."""

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[Rejected] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)  # the next to read
    size: int = 0  # records, those that are passed over included
    bytes: int = 0

    def add(self, records: Iterable[Record], streak: Streak) -> None:
        """Take in records, in the order of their offsets. Raises `TooManyDeadLettersError`."""
        for record in records:
            self._add(record, streak)

    def _add(self, record: Record, streak: Streak) -> None:
        try:
            event = decode_event(record.value)
        except UnreadableMessage as error:
            self.unreadable.append(streak.bad(Rejected(record, error.reason)))
        else:
            streak.good()
            if isinstance(event, StoredEvent):
                self.entries.append(Entry(record, event))
        self.size += 1
        self.bytes += len(record.value or b"")
        self.offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
