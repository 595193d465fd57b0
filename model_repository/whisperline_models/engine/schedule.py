"""Choose the next unit of work: windows to encode, rows to decode by one step, or words to time.

A unit is never interrupted. It is one piece of an encoding, one step of the decoder over the running rows, or one
alignment. Lanes have ranks (0 live finals, 1 live partials, 2 files), and the lane with the lowest rank that has work
goes first. Several units may be in progress at once. They have no job in common, and no more than one of them is a
step, because there is one decoder. So a new request of that lane waits until one unit in progress ends, and before its
first step perhaps until a step in progress ends. Time comes in as an argument.
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

# A lane that has had work but no unit for longer than this goes first once, so that no lane starves.
PATIENCE_S = {"final": 0.0, "partial": 1.0, "file": 5.0}


class Stage(Enum):
    """The kind of work that a job needs next; the value is its name in metrics and spans."""

    ENCODE = "encode"
    DECODE = "decode"
    ALIGN = "align"
    DONE = "done"


class Scheduled(Protocol):
    """The attributes of a job that the scheduler reads. Jobs are compared by identity."""

    rank: int  # the index of its lane in `LANES`
    stage: Stage

    @property
    def batch_key(self) -> Hashable:
        """In stage ENCODE, equal for jobs whose windows can be encoded together."""


Job = TypeVar("Job", bound=Scheduled)


@dataclass(frozen=True, eq=False)
class Unit(Generic[Job]):
    """One unit of work, done for these jobs together."""

    stage: Stage
    jobs: list[Job]


@dataclass
class Scheduler(Generic[Job]):
    """Chooses units of work. Jobs wait in the queue of their lane until they get a slot; the worker limits the queues.

    With `shares`, a unit may hold jobs of every lane, for a GPU, where another row costs next to nothing. A CPU takes
    longer for each row, so there a unit holds jobs of one lane only. Up to `encoded_together` windows of one length are
    encoded in one unit.
    """

    n_slots: int
    shares: bool = False
    encoded_together: int = 1
    waiting: list[deque[Job]] = field(default_factory=lambda: [deque() for _ in LANES])  # by rank
    active: list[Job] = field(default_factory=list)  # by rank, and within a lane in order of arrival
    _in_progress: list[Unit[Job]] = field(default_factory=list)
    _served_s: list[float] = field(default_factory=lambda: [0.0] * len(LANES))  # when a lane last had a unit
    _last: Stage | None = None

    def add(self, job: Job, now_s: float) -> None:
        """Put a job at the end of its lane's queue."""
        if not self.has_work(job.rank):
            self._served_s[job.rank] = now_s  # a lane without work has not been waiting
        self.waiting[job.rank].append(job)

    def remove(self, job: Job) -> None:
        """Remove an active job that is done."""
        self.active.remove(job)

    def has_work(self, rank: int) -> bool:
        """Return True if any job of this lane is waiting or active."""
        return bool(self.waiting[rank]) or any(job.rank == rank for job in self.active)

    @property
    def is_empty(self) -> bool:
        """True if no job of any lane is waiting or active."""
        return not self.active and not any(self.waiting)

    def next(self, now_s: float) -> Unit[Job] | None:
        """Return a unit to do now, or None if there is none besides those in progress. Call `end` when it is done.

        Waiting jobs in the unit leave their queue and become active.
        """
        ranks = [rank for rank in range(len(LANES)) if self.has_work(rank)]
        overdue = [rank for rank in ranks[1:] if now_s - self._served_s[rank] > PATIENCE_S[LANES[rank]]]
        busy = {job for unit in self._in_progress for job in unit.jobs}
        for rank in (*overdue, *ranks):
            unit = self._choose(rank, busy)
            if unit.jobs:
                self._in_progress.append(unit)
                self._last = unit.stage
                for job in unit.jobs:
                    self._served_s[job.rank] = now_s
                return unit
        if ranks and not self._in_progress:
            # a bug, after which no request would be served again: let the process end and restart
            raise RuntimeError(f"lane {LANES[ranks[0]]} has work, and none of it can be done")
        return None

    def end(self, unit: Unit[Job]) -> None:
        """Take note that a unit is done, so that its jobs can be in another one."""
        self._in_progress.remove(unit)

    def _choose(self, rank: int, busy: set[Job]) -> Unit[Job]:
        """Return the unit for the lane whose turn it is, without the jobs that are busy. It may have no jobs."""
        # In every unit, jobs of the lane whose turn it is come before jobs of other lanes.
        peers = [job for job in self.active if (self.shares or job.rank == rank) and job not in busy]
        peers.sort(key=lambda job: job.rank != rank)
        aligning = [job for job in peers if job.stage is Stage.ALIGN]
        # Alignments come first, because each completes a request. Encodings come before steps, to fill the steps.
        if aligning:
            return Unit(Stage.ALIGN, aligning[:1])
        if encoding := self._activate_for_encoding(rank, peers):
            return Unit(Stage.ENCODE, encoding)
        steps = any(unit.stage is Stage.DECODE for unit in self._in_progress)
        decoding = [] if steps else [job for job in peers if job.stage is Stage.DECODE]
        return Unit(Stage.DECODE, decoding[: self.n_slots])

    def _activate_for_encoding(self, rank: int, peers: list[Job]) -> list[Job]:
        """Return jobs to encode together now, active ones before waiting ones; the latter become active."""
        candidates = [job for job in peers if job.stage is Stage.ENCODE]
        lanes = [rank, *(other for other in range(len(LANES)) if other != rank)] if self.shares else [rank]
        for lane in lanes:
            # For the lane whose turn it is, only its own jobs count against the slots. Otherwise more urgent lanes that
            # hold every slot would shut it out for ever. More jobs than slots may then be active, and take turns.
            n_taken = sum(job.rank == rank if lane == rank else job.rank <= lane for job in self.active)
            candidates += islice(self.waiting[lane], max(0, self.n_slots - n_taken))
        chosen: list[Job] = []
        for job in candidates:
            if len(chosen) == self.encoded_together or (chosen and job.batch_key != chosen[0].batch_key):
                break
            # Rows of a more urgent lane step at least every other unit, however many windows this lane has to encode.
            delays_urgent_rows = any(peer.rank < job.rank and peer.stage is Stage.DECODE for peer in peers)
            if delays_urgent_rows and self._last is Stage.ENCODE:
                break
            chosen.append(job)
        for job in chosen:
            queue = self.waiting[job.rank]
            if queue and queue[0] is job:  # otherwise it is already active
                self.active.append(queue.popleft())
        self.active.sort(key=attrgetter("rank"))  # stable: within a lane, in order of arrival
        return chosen
