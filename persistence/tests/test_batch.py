"""A batch takes in what is stored, passes over what is not, and notes what cannot be read."""

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Event, Partial, SessionEnd, SessionStart, StreamOptions, encode_event
from whisperline_persistence.backoff import delays_s
from whisperline_persistence.batch import Batch, Rejected, Streak, TooManyDeadLettersError

ORIGIN = {"session_id": "s", "connection_id": "c", "client_id": "me"}
START = SessionStart(**ORIGIN, time_ms=1, sample_rate=16_000, channels=1, options=StreamOptions())  # type: ignore[arg-type]
END = SessionEnd(**ORIGIN, time_ms=2, segment_count=0, duration_ms=0, reason="closed")  # type: ignore[arg-type]
PARTIAL = Partial(**ORIGIN, time_ms=2, segment_index=0, start_ms=0, end_ms=1, text="so", stable_text="")  # type: ignore[arg-type]

values = st.sampled_from([encode_event(START), encode_event(END), encode_event(PARTIAL), b"garbage", None])


def record(offset: int, value: bytes | None, partition: int = 0) -> ConsumerRecord:
    size = len(value or b"")
    return ConsumerRecord("t", partition, offset, 0, 0, b"key", value, None, 1, size, ())


def event_of(value: bytes | None) -> Event | None:
    return {encode_event(event): event for event in (START, END)}.get(value or b"")


@given(st.lists(st.tuples(st.integers(0, 2), values), max_size=30))
def test_every_record_is_stored_passed_over_or_unreadable(given_values: list[tuple[int, bytes | None]]) -> None:
    """Entries and unreadable records keep their order, and the offsets to commit are past every record."""
    records = [record(offset, value, partition) for offset, (partition, value) in enumerate(given_values)]
    batch = Batch()
    batch.add(records, Streak(100))
    stored = [one for one in records if event_of(one.value) is not None]
    assert [entry.record for entry in batch.entries] == stored
    assert [entry.event for entry in batch.entries] == [event_of(one.value) for one in stored]
    assert [bad.record for bad in batch.unreadable] == [one for one in records if one.value in (b"garbage", None)]
    assert batch.offsets == {TopicPartition("t", one.partition): one.offset + 1 for one in records}
    assert batch.size == len(records)
    assert batch.bytes == sum(len(one.value or b"") for one in records)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_a_streak_ends_at_its_limit(goods: list[bool], limit: int) -> None:
    """Dead letters stop the consumer when, and only when, as many as the limit come in a row."""
    streak, run = Streak(limit), 0
    for good in goods:
        run = 0 if good else run + 1
        if good:
            streak.good()
        elif run < limit:
            streak.bad(Rejected(record(0, b""), "no good"))
        else:
            with pytest.raises(
                TooManyDeadLettersError, match=rf"{limit} dead letters in a row.*t\[0\] offset 0: no good"
            ):
                streak.bad(Rejected(record(0, b""), "no good"))
            return


@given(st.floats(0.01, 1), st.floats(1, 60), st.integers(1, 30))
def test_delays_double_up_to_a_cap(first_s: float, cap_s: float, count: int) -> None:
    """Each delay lies between half and all of a doubling one, which stops at the cap."""
    delays = [delay for delay, _ in zip(delays_s(first_s, cap_s), range(count), strict=False)]
    for number, delay in enumerate(delays):
        whole = min(first_s * 2**number, cap_s)
        assert whole / 2 <= delay <= whole
