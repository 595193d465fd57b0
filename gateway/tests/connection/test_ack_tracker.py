"""Acknowledgement covers exactly the durable prefix."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from whisperline_gateway.connection.uplink import AckTracker


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.randoms(use_true_random=False), st.integers(0, 40))
def test_only_the_contiguous_prefix_is_acknowledged(sizes: list[int], random: Random, stored_count: int) -> None:
    """Whatever order records are stored in, the position is the end of the prefix without a hole."""
    tracker = AckTracker(100)
    ends = [100 + sum(sizes[: index + 1]) for index in range(len(sizes))]
    tickets = [tracker.add(end) for end in ends]
    order = random.sample(range(len(sizes)), k=min(stored_count, len(sizes)))
    done: set[int] = set()
    for index in order:
        before = tracker.position
        moved = tracker.settle(tickets[index])
        done.add(index)
        prefix = next((i for i in range(len(sizes)) if i not in done), len(sizes))
        assert tracker.position == (ends[prefix - 1] if prefix else 100)
        assert moved == (tracker.position > before)
    assert (len(tracker) == 0) == (len(done) == len(sizes))


def test_a_new_base_is_not_moved_back_by_an_earlier_record() -> None:
    """A resumed connection goes on from where the transcriber says, whatever the token said."""
    tracker = AckTracker(10)
    ticket = tracker.add(10)
    tracker.rebase(25)
    assert not tracker.settle(ticket)
    assert tracker.position == 25
