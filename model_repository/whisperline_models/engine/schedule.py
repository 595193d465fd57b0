"""What to do next: whose window to encode, whose rows to step, whose words to time.

Work is done in units that are never interrupted: one piece of an encoding, one step of the decoder over all running
rows, or one alignment. Lanes have ranks (live finals, live partials, files) and the best lane with work goes first,
so what has just come waits for the one unit that is under way and no other. Time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

LANES = ("final", "partial", "file")  # the first goes first
PATIENCE_S = {"final": 0.0, "partial": 1.0, "file": 5.0}  # after so long without one, a lane has its turn for a unit


class Stage(Enum):
    """What a job needs next; the value names it in the metrics."""

    ENCODE = "encode"
    DECODE = "decode"
    ALIGN = "align"


class Scheduled(Protocol):
    """What the scheduler asks of a job."""

    @property
    def rank(self) -> int:
        """Its lane's place in `LANES`."""

    @property
    def stage(self) -> Stage:
        """What it needs next."""

    @property
    def encoding(self) -> Hashable:
        """What must be the same of windows that are encoded together, in stage ENCODE."""


Job = TypeVar("Job", bound=Scheduled)


@dataclass(frozen=True)
class Unit(Generic[Job]):
    """One piece of work, for these jobs together."""

    stage: Stage
    jobs: list[Job]


@dataclass
class Scheduler(Generic[Job]):
    """Jobs wait in the queue of their lane, unbounded here, until there is a slot for them.

    `shares` lets rows of every lane into one step, which costs a GPU next to nothing; a processor pays for each
    row, so there a lane has the steps to itself. Up to `encoded_together` windows of one length are one unit.
    """

    n_slots: int
    shares: bool = False
    encoded_together: int = 1
    waiting: list[deque[Job]] = field(default_factory=lambda: [deque() for _ in LANES])
    active: list[Job] = field(default_factory=list)
    _served_s: list[float] = field(default_factory=lambda: [0.0] * len(LANES))
    _last: Stage | None = None

    def add(self, job: Job, now_s: float) -> None:
        """Put a job at the end of its lane's queue."""
        if not self._has_work(job.rank):
            self._served_s[job.rank] = now_s
        self.waiting[job.rank].append(job)

    def remove(self, job: Job) -> None:
        """Forget a job that is done."""
        self.active.remove(job)

    def next(self, now_s: float) -> Unit[Job] | None:
        """The unit to do now; None when there is nothing to do. A job that it names from a queue becomes active."""
        ranks = [rank for rank in range(len(LANES)) if self._has_work(rank)]
        if not ranks:
            return None
        rank = next((r for r in ranks[1:] if self._is_overdue(r, now_s)), ranks[0])
        unit = self._unit(rank)
        if not unit.jobs:  # nobody would be served again: better that the process ends and starts anew
            raise RuntimeError(f"lane {LANES[rank]} has work, and none of it can be done")
        self._last = unit.stage
        for job in unit.jobs:
            self._served_s[job.rank] = now_s
        return unit

    def _has_work(self, rank: int) -> bool:
        return bool(self.waiting[rank]) or any(job.rank == rank for job in self.active)

    def _is_overdue(self, rank: int, now_s: float) -> bool:
        return now_s - self._served_s[rank] > PATIENCE_S[LANES[rank]]

    def _unit(self, rank: int) -> Unit[Job]:
        """Alignments first, they end a request; then encodings, for full steps; then a step.

        In each, jobs of the lane whose turn it is come before those that share with it.
        """
        peers = [job for job in self.active if self.shares or job.rank == rank]
        peers.sort(key=lambda job: job.rank != rank)
        aligning = [job for job in peers if job.stage is Stage.ALIGN]
        if aligning:
            return Unit(Stage.ALIGN, aligning[:1])
        encoding = self._to_encode(rank, peers)
        if encoding:
            return Unit(Stage.ENCODE, encoding)
        decoding = [job for job in peers if job.stage is Stage.DECODE]
        return Unit(Stage.DECODE, decoding[: self.n_slots])

    def _to_encode(self, rank: int, peers: list[Job]) -> list[Job]:
        """Windows of one length, those of jobs under way first; none while a better lane's rows must step first."""
        chosen: list[Job] = []
        for job in self._candidates(rank, peers):
            if len(chosen) == self.encoded_together or (chosen and job.encoding != chosen[0].encoding):
                break
            if self._must_step_first(job, peers):
                break
            chosen.append(job)
        for job in chosen:
            self._activate(job)
        return chosen

    def _candidates(self, rank: int, peers: list[Job]) -> Iterator[Job]:
        yield from (job for job in peers if job.stage is Stage.ENCODE)
        for waiting_rank in (rank, *(r for r in range(len(LANES)) if r != rank and self.shares)):
            # a lane whose turn it is counts its own jobs alone: better ones that fill every slot do not shut it out
            taken = sum(job.rank == rank if waiting_rank == rank else job.rank <= waiting_rank for job in self.active)
            yield from list(self.waiting[waiting_rank])[: max(0, self.n_slots - taken)]

    def _must_step_first(self, job: Job, peers: list[Job]) -> bool:
        better = any(peer.rank < job.rank and peer.stage is Stage.DECODE for peer in peers)
        return better and self._last is Stage.ENCODE

    def _activate(self, job: Job) -> None:
        queue = self.waiting[job.rank]
        if queue and queue[0] is job:
            queue.popleft()
            self.active.append(job)
            self.active.sort(key=attrgetter("rank"))  # stable: within a lane, in order of arrival
