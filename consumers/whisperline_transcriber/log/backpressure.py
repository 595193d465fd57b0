"""Backpressure: while too much audio waits in memory, some partitions are not read. Kafka keeps their records."""

from collections.abc import Mapping


def partitions_to_pause(untranscribed_s: Mapping[int, float], limit_s: float) -> set[int]:
    """Return the partitions that must not be read for now, given the seconds of audio that wait in each.

    Once all together have reached half of `limit_s`, those are paused that have more than their share of that half.
    The others go on up to their share, so that one long file does not stop everybody, and all together stay below
    `limit_s`.
    """
    most_s = limit_s / 2
    if sum(untranscribed_s.values()) < most_s:
        return set()
    share_s = most_s / len(untranscribed_s)
    return {partition for partition, waiting_s in untranscribed_s.items() if waiting_s >= share_s}
