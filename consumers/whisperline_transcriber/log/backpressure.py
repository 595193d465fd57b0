"""Backpressure: while too much audio waits in memory, some partitions are not read. Kafka keeps their records."""

from collections.abc import Mapping


def partitions_to_pause(untranscribed_s: Mapping[int, float], limit_s: float) -> set[int]:
    """Return the partitions to pause, given the seconds of untranscribed audio in each.

    Nothing is paused until the total reaches half of `limit_s`. From then on, a partition is paused if it has used up
    its equal share of that half. The others may still grow up to their share, so one long file does not stop every
    session, and the total stays below `limit_s`.
    """
    most_s = limit_s / 2
    if sum(untranscribed_s.values()) < most_s:
        return set()
    share_s = most_s / len(untranscribed_s)
    return {partition for partition, waiting_s in untranscribed_s.items() if waiting_s >= share_s}
