"""Record when the engine worked on each stage of a request, as the basis of traces.

The caller may submit a request with a `Timeline`. The engine fills it in, and the caller reads it once the request has
ended. The engine itself knows nothing of tracing, and records nothing for a request without a timeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fallback import Attempt
    from .schedule import Stage

MAX_PEERS = 32  # the most labels of other requests that one timeline keeps


@dataclass
class StageTime:
    """One stage of one attempt, from the start of its first unit of work to the end of its last.

    The engine may do units of other requests in between. `rows` is the largest number of jobs in one of its units.
    """

    stage: Stage
    attempt: Attempt
    began_s: float
    ended_s: float
    units: int
    rows: int


@dataclass
class Timeline:
    """The times of one request, from `time.monotonic`.

    `label` identifies the request to the caller. The engine does not read it, and copies it to the `peers` of others.
    """

    label: object
    queued_s: float = 0.0
    started_s: float | None = None  # None until the first unit of work
    stages: list[StageTime] = field(default_factory=list)
    peers: dict[int, object] = field(default_factory=dict)  # labels of requests that shared a unit, by their id()

    def add_unit(self, stage: Stage, attempt: Attempt, began_s: float, ended_s: float, rows: int) -> None:
        """Add a unit of work to the current stage, or begin a new one."""
        last = self.stages[-1] if self.stages else None
        # Compare by identity: two parts of a request can have equal attempts.
        if last is None or last.stage is not stage or last.attempt is not attempt:
            self.stages.append(StageTime(stage, attempt, began_s, ended_s, 1, rows))
        else:
            last.ended_s = ended_s
            last.units += 1
            last.rows = max(last.rows, rows)

    def add_peers(self, timelines: list[Timeline]) -> None:
        """Add the labels of the requests that share a unit with this one."""
        for other in timelines:
            if other is not self and len(self.peers) < MAX_PEERS:
                self.peers[id(other.label)] = other.label
