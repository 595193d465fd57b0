"""When each stage of a request was worked on: what tracing is made of, without knowing of tracing.

Whoever submits a request may hand over a `Timeline`. The engine writes into it, and the sender reads it once the
request has ended. A request without one costs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fallback import Attempt
    from .schedule import Stage

MAX_PEERS = 32  # labels of other requests that are kept for one request


@dataclass
class StageTime:
    """One stage of one attempt, from the beginning of its first unit of work to the end of its last.

    Units of other requests may lie in between. `rows` is the most that shared a unit.
    """

    stage: Stage
    attempt: Attempt
    began_s: float
    ended_s: float
    units: int
    rows: int


@dataclass
class Timeline:
    """The times of one request, of `time.monotonic`. `label` is the sender's; the engine passes it on, unread."""

    label: object
    queued_s: float = 0.0
    started_s: float | None = None  # None until the first unit of work
    stages: list[StageTime] = field(default_factory=list)
    peers: dict[int, object] = field(default_factory=dict)  # labels of requests that shared a unit, by their id()

    def add_unit(self, stage: Stage, attempt: Attempt, began_s: float, ended_s: float, rows: int) -> None:
        """Add a unit of work to the stage under way, or begin a new one."""
        last = self.stages[-1] if self.stages else None
        # Each attempt is an object of its own, so two that are equal are told apart.
        if last is None or last.stage is not stage or last.attempt is not attempt:
            self.stages.append(StageTime(stage, attempt, began_s, ended_s, 1, rows))
        else:
            last.ended_s = ended_s
            last.units += 1
            last.rows = max(last.rows, rows)

    def add_peers(self, timelines: list[Timeline]) -> None:
        """Keep the labels of the requests that share a unit with this one."""
        for other in timelines:
            if other is not self and len(self.peers) < MAX_PEERS:
                self.peers[id(other.label)] = other.label
