"""The engine, which turns audio into text for many requests at once, by units of work in one or several threads."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .aligner import Aligner
from .audio import CHUNK_LENGTH_S, SAMPLE_RATE
from .beams import BeamRow
from .decoding import Decoder, DecodingTask, Row
from .encoder import Encoder
from .errors import RequestCancelledError, RequestError
from .graphs import Device, Graphs, ModelSpec
from .jobs import Job
from .prompts import build_prompt
from .requests import LANES, MAX_BEAM_SIZE, Lane, Request
from .result import Result, build_result
from .schedule import Scheduler, Stage, Unit
from .slots import SILENCE_FRAMES, Slots
from .stages import Stages
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .fallback import Attempt
    from .timeline import Timeline

log = logging.getLogger(__name__)

ENCODED_TOGETHER = 8  # the most windows in one unit on a GPU; on a CPU, each window is a unit of its own
UNITS_AT_ONCE = 4  # the most units in progress at once on a CPU, one for each core; on a GPU there is only one


class Observer(Protocol):
    """Receives the engine's measurements, for metrics, from one thread at a time."""

    def started(self, lane: str, waited_s: float) -> None:
        """Record that a request's first unit of work begins, `waited_s` after the request arrived."""

    def worked(self, stage: str, n_rows: int, took_s: float) -> None:
        """Record that a unit of work with `n_rows` jobs is done."""

    def counted(self, lane: str, waiting: int, active: int) -> None:
        """Record how many requests of a lane are waiting, and how many are active."""


@dataclass
class _Task:
    """A unit in progress. Until it ends, only the thread that runs it touches its jobs."""

    unit: Unit[Job]
    began_s: float
    ended_s: float = 0.0
    starting: list[Job] = field(default_factory=list)  # the jobs for which this is the first unit
    jobs: list[Job] = field(default_factory=list)  # those of the unit that nobody has cancelled
    attempts: list[Attempt] = field(default_factory=list)  # of `jobs`; the unit may move a job on to its next attempt
    outcomes: list[tuple[Job, Result | Exception]] = field(default_factory=list)  # of the jobs that end here


class Engine:
    """A loaded version. Any thread may `submit`, and up to `n_threads` threads may `work` or `serve` at once.

    Each unit of work runs in the thread that takes it. On a CPU, the graphs also share a pool of threads, which helps
    the units in progress: a lone unit then uses all cores, and several hardly slow each other down (docs/adr/0009).

    `graphs`, `encoder`, `decoder`, `open_beam_decoder`, `slots` and `aligner` are public for the tools that compare
    them with the reference. The tools may use them only while the engine has no requests.

    `beam_sizes` are the hypotheses of beam search in each lane, for requests that do not say; 1 if a lane is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str = "1",
        max_batch: int = 16,
        threads: int = 0,
        gpu: int = 0,
        beam_sizes: Mapping[Lane, int] = MappingProxyType({}),
        observer: Observer | None = None,
    ) -> None:
        self.version = version
        self.spec = ModelSpec.read(folder)
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_bytes(), self.spec.n_vocab)
        self._device = Device.find(gpu)
        self.graphs = Graphs.open(folder, self.spec, self._device, threads)
        self.encoder = Encoder(self.graphs, self.spec, self._device)
        # The last frames of 30 s of encoded silence, which follow every shorter window (see `slots.py`).
        silence = self.encoder.window(np.zeros(SAMPLE_RATE, np.float32), CHUNK_LENGTH_S)[:, :, -SILENCE_FRAMES:].copy()
        self.slots = Slots(self.graphs.decoder, self.spec, self._device, silence, n_slots=max_batch)
        self.aligner = Aligner(self.graphs, self.spec, self._device, self.slots, self.tokenizer)
        self.decoder = Decoder(self.slots, self.aligner, self.tokenizer)
        # A beam takes as much of a step as a greedy row, so a step has about as many rows with beams as without.
        n_windows = max(1, max_batch // MAX_BEAM_SIZE)

        @cache
        def open_beam_decoder() -> Decoder:
            graph = self.graphs.open_beam_decoder()
            slots = Slots(graph, self.spec, self._device, silence, n_slots=n_windows, n_beams=MAX_BEAM_SIZE)
            return Decoder(slots, self.aligner, self.tokenizer)

        self.open_beam_decoder = open_beam_decoder
        self._beam_sizes = {lane: beam_sizes.get(lane, 1) for lane in LANES}
        self._stages = Stages(self.encoder, self.decoder, open_beam_decoder, self.aligner, self.tokenizer)
        on_gpu = self._device.on_gpu
        self.n_threads = 1 if on_gpu else min(threads or len(os.sched_getaffinity(0)), UNITS_AT_ONCE)
        self._schedule = Scheduler[Job](max_batch, on_gpu, ENCODED_TOGETHER if on_gpu else 1)
        self._changed = threading.Condition()  # guards the schedule, and the fields of jobs that are in no unit
        self._observer = observer
        self._observing = threading.Lock()
        self._last_batches: dict[Stage, list[Job]] = {}  # the jobs of the previous unit, to detect a change

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        arrived_s: float | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """Queue a request. Later, a thread in `work` or `serve` calls `finish` with its result or error.

        `finish` must not raise. `arrived_s` (from `time.monotonic`) is when the request arrived, now by default. The
        engine records the times of its stages in `timeline`.
        """
        if request.beam_size is None:
            request = replace(request, beam_size=self._beam_sizes[request.lane])
        try:
            build_prompt(request, self.tokenizer)
        except RequestError as error:  # the prefix is too long
            finish(error)
            return
        came_s = time.monotonic() if arrived_s is None else arrived_s
        if timeline is not None:
            timeline.queued_s = came_s
        job = Job(
            request,
            self.spec.windows_s,
            finish=finish,
            is_cancelled=is_cancelled,
            arrived_s=came_s,
            timeline=timeline,
        )
        with self._changed:
            self._schedule.add(job, came_s)
            self._changed.notify()

    def work(self) -> bool:
        """Do one unit of work: a piece of an encoding, a step or an alignment. Return False if there was none to do.

        An exception in a unit ends the requests in that unit, and no others.
        """
        self._device.use()
        task = self._begin()
        if task is None:
            return False
        self._run(task)
        self._end(task)
        self._report(task)
        return True

    def serve(self, closing: threading.Event) -> None:
        """Do units of work until `closing` is set and every request is answered. After setting it, call `wake`."""
        self._device.use()
        while True:
            with self._changed:
                while (task := self._begin()) is None:
                    if closing.is_set() and self._schedule.is_empty:
                        return
                    self._changed.wait()
            while task is not None:
                self._run(task)
                with self._changed:
                    # Choose the next unit before the lock is released: between two units of an urgent request, no other
                    # thread may begin a step of a less urgent one.
                    self._end(task)
                    ended, task = task, self._begin()
                self._report(ended)

    def wake(self) -> None:
        """Let every thread in `serve` look at `closing`."""
        with self._changed:
            self._changed.notify_all()

    def _begin(self) -> _Task | None:
        with self._changed:
            now_s = time.monotonic()
            unit = self._schedule.next(now_s)
            return None if unit is None else _Task(unit, now_s)

    def _run(self, task: _Task) -> None:
        """Run the graphs for the jobs of a task. Several threads may be here at once, each with a task of its own."""
        stage = task.unit.stage
        for job in task.unit.jobs:
            if not job.started and job.is_cancelled():
                task.outcomes.append((job, RequestCancelledError("cancelled before its turn")))
                continue
            if not job.started:
                job.started = True
                task.starting.append(job)
            task.jobs.append(job)
        if not task.jobs:
            return
        task.attempts = [job.attempt for job in task.jobs]
        try:
            self._stages.run(stage, task.jobs)
            done = [job for job in task.jobs if job.stage is Stage.DONE]
            name, version = self.spec.name, self.version
            task.outcomes += [(job, build_result(job.parts, self.tokenizer, name, version)) for job in done]
        except Exception as error:  # of any kind: the other requests go on
            log.exception("a unit of work failed: %s", stage.value)
            task.outcomes += [(job, error) for job in task.jobs]

    def _end(self, task: _Task) -> None:
        """Release the jobs of a task, and let the other threads look for work."""
        with self._changed:
            task.ended_s = time.monotonic()
            self._schedule.end(task.unit)
            for job, _ in task.outcomes:
                self._schedule.remove(job)
            self._note_times(task)
            self._changed.notify_all()

    def _note_times(self, task: _Task) -> None:
        """Record a unit in the timelines of the requests in it."""
        for job in task.starting:
            if job.timeline is not None:
                job.timeline.started_s = task.began_s
        stage, jobs = task.unit.stage, task.jobs
        timelines = [job.timeline for job in jobs if job.timeline is not None]
        if not timelines:
            return
        for job, attempt in zip(jobs, task.attempts, strict=True):
            if job.timeline is not None:
                job.timeline.add_unit(stage, attempt, task.began_s, task.ended_s, len(jobs))
        # Most steps have the same rows as the previous one. Every pair of rows is visited only after a change.
        if jobs != self._last_batches.get(stage):
            for timeline in timelines:
                timeline.add_peers(timelines)
        self._last_batches[stage] = jobs

    def _report(self, task: _Task) -> None:
        """Give the outcomes of a task to their senders, and its measurements to the observer."""
        if self._observer:
            with self._observing:
                for job in task.starting:
                    self._observer.started(job.request.lane, task.began_s - job.arrived_s)
                if task.jobs:
                    self._observer.worked(task.unit.stage.value, len(task.jobs), task.ended_s - task.began_s)
        for job, outcome in task.outcomes:
            job.finish(outcome)
        if self._observer:
            with self._observing:
                for rank, lane in enumerate(LANES):
                    with self._changed:
                        n_active = sum(job.rank == rank for job in self._schedule.active)
                        n_waiting = len(self._schedule.waiting[rank])
                    self._observer.counted(lane, n_waiting, n_active)

    def transcribe(self, requests: Sequence[Request]) -> list[Result]:
        """Transcribe requests together and return their results in order. No result depends on the other requests.

        Only for an engine that no other thread serves. Raises the error of the first request that failed.
        """
        outcomes: list[Result | Exception | None] = [None] * len(requests)

        def finisher(index: int) -> Callable[[Result | Exception], None]:
            def finish(outcome: Result | Exception) -> None:
                outcomes[index] = outcome

            return finish

        for index, request in enumerate(requests):
            self.submit(request, finisher(index))
        while None in outcomes and self.work():
            pass
        results: list[Result] = []
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                results.append(outcome)
        return results

    def warm_up(self) -> None:
        """Run all graphs over silence in the expected shapes, so that no request has to wait for a first run.

        On a GPU, the thread that works must call this, because ONNX Runtime keeps captured CUDA graphs by thread.
        """
        self._device.use()
        silence = Request(np.zeros(SAMPLE_RATE, np.float32))
        # Only one window is kept at a time: all of them together would need as much memory as the slots.
        for window_s in self.spec.windows_s:
            window = self.encoder.window(silence.audio, window_s)
            for together in range(2, self._schedule.encoded_together + 1):
                self.encoder.encode([self.encoder.mel(silence.audio, window_s)] * together)
        task = DecodingTask(window, build_prompt(silence, self.tokenizer))
        self.aligner.token_starts(window, task.prompt.tokens[:1], "en", SAMPLE_RATE)
        n_slots = self.slots.n_slots
        if self._device.on_gpu:  # each size is captured as a graph of its own
            sizes = {self._device.bucket(n, n_slots) for n in range(1, n_slots + 1)}
        else:
            sizes = {1, n_slots}
        for size in sorted(sizes):
            self.decoder.step([Row(task, self.tokenizer) for _ in range(size)])
        self.decoder.step([Row(task, self.tokenizer)])  # also makes the rows of the previous step leave their slots
        if max(self._beam_sizes.values()) > 1:  # otherwise, the first request with beams loads and warms its decoder
            decoder = self.open_beam_decoder()
            for size in sorted({self._device.bucket(n, decoder.n_slots) for n in range(1, decoder.n_slots + 1)}):
                decoder.step([BeamRow(task, self.tokenizer) for _ in range(size)])
            decoder.step([BeamRow(task, self.tokenizer)])
