"""The scheduler: the order of lanes, full batches, limits, and no starvation."""

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_models.engine.requests import LANES
from whisperline_models.engine.schedule import PATIENCE_S, Scheduler, Stage, Unit

SLOTS = 4
FINAL, PARTIAL, FILE = range(len(LANES))


@dataclass(eq=False)
class Job:
    """A job that takes `pieces` units to encode and `steps` units to decode, and is then aligned."""

    rank: int
    steps: int = 3
    window_s: int = 10
    pieces: int = 1
    stage: Stage = Stage.ENCODE

    @property
    def batch_key(self) -> tuple[int, int]:
        """The window's length and the next piece, as for a real job."""
        return self.window_s, self.pieces

    def work(self) -> bool:
        """Advance by one unit. Return True when done."""
        if self.stage is Stage.ALIGN:
            return True
        if self.stage is Stage.ENCODE and self.pieces > 1:
            self.pieces -= 1
            return False
        if self.stage is Stage.DECODE:
            self.steps -= 1
        self.stage = Stage.DECODE if self.steps > 0 else Stage.ALIGN
        return False


def do(schedule: Scheduler[Job], now_s: float = 0.0) -> Unit[Job] | None:
    """Do the next unit of work."""
    unit = schedule.next(now_s)
    if unit:
        end(schedule, unit)
    return unit


def end(schedule: Scheduler[Job], unit: Unit[Job]) -> None:
    """Do a unit of work that has begun."""
    schedule.end(unit)
    for job in unit.jobs:
        if job.work():
            schedule.remove(job)


jobs = st.lists(
    st.builds(Job, rank=st.sampled_from(range(3)), steps=st.integers(1, 6), pieces=st.integers(1, 3)),
    max_size=30,
)
schedules = st.builds(Scheduler[Job], st.integers(1, 5), shares=st.booleans(), encoded_together=st.integers(1, 3))


@settings(deadline=None)
@given(
    schedule=schedules,
    arrivals=st.lists(jobs, max_size=5),
    gaps=st.integers(0, 9),
    unit_s=st.sampled_from([0.0, 0.2, 0.4, 3.0]),
)
def test_every_job_is_done_and_slots_are_never_exceeded(
    schedule: Scheduler[Job], arrivals: list[list[Job]], gaps: int, unit_s: float
) -> None:
    """Whenever jobs arrive and however long units take, no step has more rows than slots, and every job ends."""
    everybody = [job for batch in arrivals for job in batch]
    clock = count()
    for batch in arrivals:
        for job in batch:
            schedule.add(job, next(clock) * unit_s)
        for _ in range(gaps):
            do(schedule, next(clock) * unit_s)
    for _ in range(len(everybody) * 12):
        unit = do(schedule, next(clock) * unit_s)
        assert len(schedule.active) <= len(LANES) * schedule.n_slots
        assert unit is None or unit.stage is not Stage.DECODE or 1 <= len(unit.jobs) <= schedule.n_slots
    assert schedule.next(next(clock) * unit_s) is None
    assert all(job.stage is Stage.ALIGN for job in everybody)


@settings(deadline=None)
@given(schedule=schedules, arrivals=st.lists(jobs, max_size=5), n_threads=st.integers(2, 4), data=st.data())
def test_units_in_progress_have_no_job_in_common(
    schedule: Scheduler[Job], arrivals: list[list[Job]], n_threads: int, data: st.DataObject
) -> None:
    """With several units in progress, which end in any order, at most one is a step, no job is in two, and all end."""
    everybody = [job for batch in arrivals for job in batch]
    in_progress: list[Unit[Job]] = []
    while arrivals or not schedule.is_empty:
        if arrivals and (schedule.is_empty or data.draw(st.booleans())):
            for job in arrivals.pop(0):
                schedule.add(job, 0.0)
        while len(in_progress) < n_threads and (unit := schedule.next(0.0)):
            in_progress.append(unit)
        in_units = [job for unit in in_progress for job in unit.jobs]
        assert len(in_units) == len(set(in_units))
        assert sum(unit.stage is Stage.DECODE for unit in in_progress) <= 1
        assert schedule.is_empty or in_progress
        if in_progress:
            end(schedule, in_progress.pop(data.draw(st.integers(0, len(in_progress) - 1))))
    assert all(job.stage is Stage.ALIGN for job in everybody)


@settings(deadline=None)
@given(files=st.integers(1, 9), pieces=st.integers(1, 5), steps=st.integers(1, 9), data=st.data())
def test_a_live_final_waits_until_one_of_two_units_ends(
    files: int, pieces: int, steps: int, data: st.DataObject
) -> None:
    """Beside files in two threads, whichever unit ends first, the next one is the final's, until it is answered.

    Only for its first step it may wait once more: for a step of the files that is in progress.
    """
    schedule = Scheduler[Job](SLOTS)
    for _ in range(files):
        schedule.add(Job(FILE, steps=50, pieces=pieces), 0.0)
    in_progress = [unit for unit in (schedule.next(0.0), schedule.next(0.0)) if unit]
    final, first_step, waits = Job(FINAL, steps, pieces=pieces), True, 0
    schedule.add(final, 0.0)
    while final in schedule.active or final in schedule.waiting[FINAL]:
        own = next((unit for unit in in_progress if final in unit.jobs), None)
        chosen = data.draw(st.sampled_from(in_progress))
        if own is None and final.stage is Stage.DECODE:
            assert first_step
            waits += 1
            chosen = next(unit for unit in in_progress if unit.stage is Stage.DECODE)
        in_progress.remove(chosen)
        end(schedule, chosen)
        unit = schedule.next(0.0)
        if unit:
            in_progress.append(unit)
        first_step &= final.stage is not Stage.DECODE or not any(final in unit.jobs for unit in in_progress)
        is_done = final not in schedule.active and final not in schedule.waiting[FINAL]
        stepping = any(unit.stage is Stage.DECODE for unit in in_progress)
        assert is_done or any(final in unit.jobs for unit in in_progress) or (first_step and stepping)
    assert waits <= 1


@settings(deadline=None)
@given(files=st.integers(1, 9), pieces=st.integers(1, 5), steps=st.integers(1, 9), before=st.integers(0, 12))
def test_a_live_final_waits_for_one_unit_at_most(files: int, pieces: int, steps: int, before: int) -> None:
    """From a live final's arrival to its end, every unit is its own, however many files are in progress."""
    schedule = Scheduler[Job](SLOTS)
    for _ in range(files):
        schedule.add(Job(FILE, steps=50, pieces=pieces), 0.0)
    for _ in range(before):
        do(schedule)
    final = Job(FINAL, steps, pieces=pieces)
    schedule.add(final, 0.0)
    while final in schedule.active or final in schedule.waiting[FINAL]:
        unit = do(schedule)
        assert unit is not None
        assert unit.jobs == [final]


@settings(deadline=None)
@given(ranks=st.permutations([FILE, FINAL, PARTIAL, FILE, FINAL]))
def test_lanes_go_in_their_order_and_jobs_in_the_order_of_arrival(ranks: list[int]) -> None:
    """With one slot, jobs end in the order of their lanes, and within a lane in the order of arrival."""
    schedule, arrived = Scheduler[Job](1), [Job(rank) for rank in ranks]
    for job in arrived:
        schedule.add(job, 0.0)
    done = []
    while unit := do(schedule):
        done += [job for job in unit.jobs if job not in schedule.active]
    assert done == sorted(arrived, key=lambda job: job.rank)


@pytest.mark.parametrize("rank", [PARTIAL, FILE])
@pytest.mark.parametrize("n_finals", [1, SLOTS, SLOTS + 1])
@pytest.mark.parametrize("shares", [False, True])
def test_a_lane_that_waits_for_long_has_its_turn(rank: int, n_finals: int, shares: bool) -> None:
    """Under endless live finals, even in every slot, a less urgent lane gets a unit when its patience is over."""
    schedule = Scheduler[Job](SLOTS, shares=shares)
    for _ in range(n_finals):
        schedule.add(Job(FINAL, steps=1000), 0.0)
    for _ in range(SLOTS + 1):
        do(schedule)
    late = Job(rank)
    schedule.add(late, 0.0)
    late_s = PATIENCE_S[LANES[rank]] + 0.1
    turns = 0
    while turns == 0 or late in schedule.active:
        turns += 1
        unit = do(schedule, turns * late_s)
        assert unit is not None
        assert late in unit.jobs
        between = do(schedule, turns * late_s + 0.1)
        assert between is not None
        assert shares or between.jobs[0].rank == FINAL
    assert shares or turns == 5  # a window, three steps and an alignment


def test_windows_are_encoded_first_so_that_steps_are_full() -> None:
    """All jobs of a lane that get a slot are encoded before the first step, which then has a row for each."""
    schedule = Scheduler[Job](SLOTS)
    for _ in range(SLOTS + 1):
        schedule.add(Job(FINAL), 0.0)
    units = [do(schedule) for _ in range(SLOTS + 1)]
    assert [unit.stage for unit in units if unit] == [Stage.ENCODE] * SLOTS + [Stage.DECODE]
    assert units[-1] is not None
    assert len(units[-1].jobs) == SLOTS


def test_only_windows_of_one_length_are_encoded_together() -> None:
    """Windows of different lengths are encoded in different units."""
    schedule = Scheduler[Job](SLOTS, shares=True, encoded_together=3)
    for window_s in (10, 10, 30, 10):
        schedule.add(Job(FINAL, window_s=window_s), 0.0)
    units = [do(schedule) for _ in range(3)]
    assert [[job.window_s for job in unit.jobs] for unit in units if unit] == [[10, 10], [30], [10]]


def test_windows_behind_different_pieces_are_not_encoded_together() -> None:
    """A window that is partly encoded is not joined by a new one, because they need different pieces."""
    schedule = Scheduler[Job](SLOTS, shares=True, encoded_together=3)
    schedule.add(Job(FINAL, pieces=2), 0.0)
    do(schedule)
    schedule.add(Job(FINAL, pieces=2), 0.0)
    units = [do(schedule) for _ in range(3)]
    assert [(unit.stage, len(unit.jobs)) for unit in units if unit] == [(Stage.ENCODE, 1)] * 3


def test_lanes_share_a_step_where_that_costs_nothing() -> None:
    """With `shares`, a file's rows stay in the steps of a live final, and its next window waits for a step."""
    schedule = Scheduler[Job](SLOTS, shares=True)
    schedule.add(Job(FILE, steps=9), 0.0)
    do(schedule)
    schedule.add(Job(FINAL), 0.0)
    schedule.add(Job(FILE), 0.0)
    units = [do(schedule) for _ in range(3)]
    seen = [(unit.stage, [job.rank for job in unit.jobs]) for unit in units if unit]
    assert seen == [(Stage.ENCODE, [FINAL]), (Stage.DECODE, [FINAL, FILE]), (Stage.ENCODE, [FILE])]
