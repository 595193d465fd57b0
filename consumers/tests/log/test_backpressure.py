"""Partitions with much waiting audio are paused while too much audio waits in memory."""

from hypothesis import given
from hypothesis import strategies as st
from whisperline_transcriber.log.backpressure import partitions_to_pause


@given(st.lists(st.lists(st.floats(0, 30), min_size=4, max_size=4), max_size=40), st.sets(st.integers(0, 3)))
def test_reading_stops_below_the_limit_and_only_for_those_with_much(read_s: list[list[float]], stuck: set[int]) -> None:
    """The total stays bounded even if some partitions are stuck, and partitions with a small backlog are still read."""
    limit_s, waits_s = 400.0, dict.fromkeys(range(4), 0.0)
    for turn in read_s:
        paused = partitions_to_pause(waits_s, limit_s)
        assert all(waits_s[number] >= limit_s / 8 for number in paused)
        assert not paused or sum(waits_s.values()) >= limit_s / 2
        for number, new_s in enumerate(turn):
            decided_s = 0 if number in stuck else 20
            waits_s[number] = max(0, waits_s[number] - decided_s) + (0 if number in paused else new_s)
        assert sum(waits_s.values()) <= limit_s + sum(turn)
