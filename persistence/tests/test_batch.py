"""A batch collects the events to store, skips the others, and collects the records that cannot be read."""

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Event, Partial, SessionEnd, SessionStart, StreamOptions, encode_event
from whisperline_persistence.batch import Batch

ORIGIN = {"session_id": "s", "connection_id": "c", "client_id": "me"}
START = SessionStart(**ORIGIN, time_ms=1, sample_rate=16_000, channels=1, options=StreamOptions())
END = SessionEnd(**ORIGIN, time_ms=2, segment_count=0, duration_ms=0, reason="closed")
PARTIAL = Partial(**ORIGIN, time_ms=2, segment_index=0, start_ms=0, end_ms=1, text="so", stable_text="")

values = st.sampled_from([encode_event(START), encode_event(END), encode_event(PARTIAL), b"garbage", None])


def record(offset: int, value: bytes | None, partition: int = 0) -> ConsumerRecord:
    size = len(value or b"")
    return ConsumerRecord("t", partition, offset, 0, 0, b"key", value, None, 1, size, ())


def event_of(value: bytes | None) -> Event | None:
    return {encode_event(event): event for event in (START, END)}.get(value or b"")


@given(st.lists(st.tuples(st.integers(0, 2), values), max_size=30))
def test_every_record_is_stored_skipped_or_unreadable(given_values: list[tuple[int, bytes | None]]) -> None:
    """Entries and unreadable records keep their order, and the offsets to commit are those after the last records."""
    records = [record(offset, value, partition) for offset, (partition, value) in enumerate(given_values)]
    batch = Batch()
    rejected = [batch.add(one) for one in records]
    stored = [one for one in records if event_of(one.value) is not None]
    assert [entry.record for entry in batch.entries] == stored
    assert [entry.event for entry in batch.entries] == [event_of(one.value) for one in stored]
    assert [bad.record for bad in batch.unreadable] == [one for one in records if one.value in (b"garbage", None)]
    assert [bad for bad in rejected if bad is not None] == batch.unreadable
    assert batch.offsets == {TopicPartition("t", one.partition): one.offset + 1 for one in records}
    assert batch.size == len(records)
    assert batch.bytes == sum(len(one.value or b"") for one in records)
