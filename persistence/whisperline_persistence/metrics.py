"""The metrics of the persistence process. `docs/metrics.md` lists those of every process."""

import time
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram
from whisperline_contracts import Final

FINALS = Counter("whisperline_persistence_finals_total", "Finals, by what the database did with them", ["outcome"])
DEAD_LETTERS = Counter("whisperline_persistence_dead_letters_total", "Records copied to the dead letters")
FAILURES = Counter("whisperline_persistence_database_failures_total", "Requests that the database did not answer")
DATABASE_UP = Gauge("whisperline_persistence_database_up", "1 if the database answered the last request, else 0")
WRITE_SECONDS = Histogram("whisperline_persistence_write_seconds", "Duration of one committed transaction")
STORED_AFTER_SECONDS = Histogram(
    "whisperline_persistence_stored_after_seconds",
    "Time from the making of a final until its row was committed",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
LAG = Gauge("whisperline_persistence_lag_records", "Records in the log after the last one read", ["partition"])


def count_finals(events: Iterable[object], new: int) -> None:
    """Count the finals among events that were just committed; `new` of them were not stored before."""
    made_ms = [event.time_ms for event in events if isinstance(event, Final)]
    FINALS.labels("stored").inc(new)
    FINALS.labels("already_stored").inc(len(made_ms) - new)
    for time_ms in made_ms:
        STORED_AFTER_SECONDS.observe(max(0.0, time.time() - time_ms / 1000))
