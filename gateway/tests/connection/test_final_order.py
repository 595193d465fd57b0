"""Finals reach a client in order and once, from whichever source."""

from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Final, SegmentEnd
from whisperline_gateway.connection.downlink import MAX_HELD, FinalOrder


def final(index: int) -> Final:
    return Final(
        session_id="s", connection_id="c", client_id="o", time_ms=0, segment_index=index, start_ms=0, end_ms=1,
        text=str(index), words=(), language="en", confidence=1, reason=SegmentEnd.SILENCE, model="m",
        model_version="1", position=0,
    )  # fmt: skip


@given(st.integers(0, 5), st.lists(st.integers(0, 150), max_size=200))
def test_any_arrival_gives_each_final_once_and_in_order(first: int, arrivals: list[int]) -> None:
    """Duplicates and what the client has are dropped; a gap is filled before later finals are told."""
    order = FinalOrder(first)
    told: list[int] = []
    for index in arrivals:
        told += [f.segment_index for f in order.offer(final(index))]
        assert told == list(range(first, first + len(told)))
    while (gap := order.gap) is not None:
        told += [f.segment_index for f in order.offer(final(gap[0]))]
    assert told == list(range(first, max([first, *(index + 1 for index in arrivals)])))


def test_what_is_held_is_bounded() -> None:
    """More finals than may be held are asked for again, from the database."""
    order = FinalOrder()
    for index in range(1, 10 * MAX_HELD):
        assert order.offer(final(index)) == []
    assert len(order.offer(final(0))) == MAX_HELD + 1
    assert order.gap == (MAX_HELD + 1, 10 * MAX_HELD)


def test_announced_finals_are_a_gap() -> None:
    """Finals that are known to exist and have not come are missing."""
    order = FinalOrder(2)
    assert order.gap is None
    order.announce(4)
    assert order.gap == (2, 4)
