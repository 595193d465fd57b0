"""Which unit of work is next: whose window to encode, whose rows to step, whose words to time.

Work is done in units that are never interrupted: one piece of an encoding, one step of the decoder over all running
rows, or one alignment. Lanes have ranks (live finals, live partials, files), and the best lane with work goes first:
so a request that has just come waits for the one unit that is under way, and for no other. Time comes in as an
argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .requests import LANES

if TYPE_CHECKING:
    from collections.abc import Hashable

# A lane that has had no unit for so long gets one before better lanes, so that nobody starves.
PATIENCE_S = {"final": 0.0, "partial": 1.0, "file": 5.0}


class Stage(Enum):
    """What a job needs next; the value is its name in the metrics and spans."""

    ENCODE = "encode"
    DECODE = "decode"
    ALIGN = "align"
    DONE = "done"


class Scheduled(Protocol):
    """What the scheduler asks of a job."""

    rank: int  # its lane's place in `LANES`
    stage: Stage

    @property
    def batch_key(self) -> Hashable:
        """Equal for jobs whose windows can be encoded together, in stage ENCODE."""


Job = TypeVar("Job", bound=Scheduled)


@dataclass(frozen=True)
class Unit(Generic[Job]):
    """One piece of work, for these jobs together."""

    stage: Stage
    jobs: list[Job]


@dataclass
class Scheduler(Generic[Job]):
    """Jobs wait in the queue of their lane, which the worker bounds, until there is a slot for them.

    With `shares`, one step takes rows of every lane: on a GPU a row more costs next to nothing. A processor pays for
    each row, so there a lane has its steps to itself. Up to `encoded_together` windows of one length are encoded in
    one unit.
    """

    n_slots: int
    shares: bool = False
    encoded_together: int = 1
    waiting: list[deque[Job]] = field(default_factory=lambda: [deque() for _ in LANES])  # by rank
    active: list[Job] = field(default_factory=list)  # by rank, and within a lane in order of arrival
    _served_s: list[float] = field(default_factory=lambda: [0.0] * len(LANES))  # when a lane last had a unit
    _last: Stage | None = None

    def add(self, job: Job, now_s: float) -> None:
        """Put a job at the end of its lane's queue."""
        if not self.has_work(job.rank):
            self._served_s[job.rank] = now_s  # a lane without work has not been waiting
        self.waiting[job.rank].append(job)

    def remove(self, job: Job) -> None:
        """Forget an active job that is done."""
        self.active.remove(job)

    def has_work(self, rank: int) -> bool:
        """True if any job of this lane waits or is under way."""
        return bool(self.waiting[rank]) or any(job.rank == rank for job in self.active)

    def next(self, now_s: float) -> Unit[Job] | None:
        """Return the unit to do now, or None when there is nothing to do.

        A job from a queue that is in the unit becomes active.
        """
        ranks = [rank for rank in range(len(LANES)) if self.has_work(rank)]
        if not ranks:
            return None
        overdue = (rank for rank in ranks[1:] if now_s - self._served_s[rank] > PATIENCE_S[LANES[rank]])
        rank = next(overdue, ranks[0])
        # In every unit, jobs of the lane whose turn it is come before those that share the unit.
        peers = [job for job in self.active if self.shares or job.rank == rank]
        peers.sort(key=lambda job: job.rank != rank)
        aligning = [job for job in peers if job.stage is Stage.ALIGN]
        # Alignments come first, since each ends a request; encodings come before steps, so that steps are full.
        if aligning:
            unit = Unit(Stage.ALIGN, aligning[:1])
        elif encoding := self._activate_for_encoding(rank, peers):
            unit = Unit(Stage.ENCODE, encoding)
        else:
            decoding = [job for job in peers if job.stage is Stage.DECODE]
            unit = Unit(Stage.DECODE, decoding[: self.n_slots])
        if not unit.jobs:  # nobody would be served again: better that the process ends and starts anew
            raise RuntimeError(f"lane {LANES[rank]} has work, and none of it can be done")
        self._last = unit.stage
        for job in unit.jobs:
            self._served_s[job.rank] = now_s
        return unit

    def _activate_for_encoding(self, rank: int, peers: list[Job]) -> list[Job]:
        """Return jobs whose windows are encoded together now, those under way first; make the others active."""
        candidates = [job for job in peers if job.stage is Stage.ENCODE]
        lanes = [rank, *(other for other in range(len(LANES)) if other != rank)] if self.shares else [rank]
        for lane in lanes:
            # In a lane whose turn it is, only its own jobs count against the slots: else the jobs of better lanes,
            # when they hold every slot, would shut it out for ever. More jobs are active than there are slots then,
            # and take turns.
            n_taken = sum(job.rank == rank if lane == rank else job.rank <= lane for job in self.active)
            candidates += islice(self.waiting[lane], max(0, self.n_slots - n_taken))
        chosen: list[Job] = []
        for job in candidates:
            if len(chosen) == self.encoded_together or (chosen and job.batch_key != chosen[0].batch_key):
                break
            # Rows of a better lane step at least every other unit, however many windows a lower lane has to encode.
            waits_for_better = any(peer.rank < job.rank and peer.stage is Stage.DECODE for peer in peers)
            if waits_for_better and self._last is Stage.ENCODE:
                break
            chosen.append(job)
        for job in chosen:
            queue = self.waiting[job.rank]
            if queue and queue[0] is job:  # else it is active already
                self.active.append(queue.popleft())
        self.active.sort(key=attrgetter("rank"))  # stable: within a lane, in order of arrival
        return chosen
