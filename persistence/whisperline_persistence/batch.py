"""Sort records of `transcriptions` into those to store, those to skip, and those that cannot be read. No I/O."""

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


@dataclass
class Batch:
    """Records that were read together. They are stored together, and their offsets are committed afterwards."""

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[Rejected] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)  # the next offset to read in each partition
    size: int = 0  # records, the skipped ones included
    bytes: int = 0

    def add(self, record: Record) -> Rejected | None:
        """Add a partition's next record. If it cannot be read, return it with the reason."""
        rejected = None
        try:
            event = decode_event(record.value)
        except UnreadableMessage as error:
            rejected = Rejected(record, error.reason)
            self.unreadable.append(rejected)
        else:
            if isinstance(event, StoredEvent):
                self.entries.append(Entry(record, event))
        self.size += 1
        self.bytes += len(record.value or b"")
        self.offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        return rejected
