"""Which partitions are not read for now, while too much audio waits in memory. Kafka keeps it."""

from collections.abc import Mapping


def crowded(backlog_s: Mapping[int, float], limit_s: float) -> set[int]:
    """Return the partitions that must wait, given how much audio waits of each.

    As soon as all together reach half of `limit_s`, those wait that have more than their share of that half. The others
    go on up to their share, so that one long file does not stop everybody, and all together stay below `limit_s`.
    """
    most_s = limit_s / 2
    if sum(backlog_s.values()) < most_s:
        return set()
    return {partition for partition, waits_s in backlog_s.items() if waits_s >= most_s / len(backlog_s)}
