"""From audio to text: an engine that does one unit of work at a time, for many requests at once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .aligner import Aligner
from .audio import CHUNK_LENGTH_S, SAMPLE_RATE
from .decoding import Decoder, DecodingTask, Row
from .encoder import Encoder
from .errors import RequestCancelledError
from .graphs import Device, Graphs, ModelSpec
from .jobs import Job
from .prompts import build_prompt
from .requests import LANES, Request
from .result import Result, build_result
from .schedule import Scheduler, Stage
from .slots import SILENCE_FRAMES, Slots
from .stages import Stages
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .fallback import Attempt
    from .timeline import Timeline

log = logging.getLogger(__name__)

ENCODED_TOGETHER = 8  # windows in one unit on a GPU; a processor is full with one


class Observer(Protocol):
    """Is told of the work, for metrics."""

    def started(self, lane: str, waited_s: float) -> None:
        """A request had its first unit of work."""

    def worked(self, stage: str, n_rows: int, took_s: float) -> None:
        """A unit of work is done."""

    def counted(self, lane: str, waiting: int, active: int) -> None:
        """So many requests of a lane wait, and so many are under way."""


class Engine:
    """A loaded version. Not thread-safe: one thread submits and works.

    `graphs`, `encoder`, `decoder`, `slots` and `aligner` are public for the tools that compare them with the reference,
    while no request is under way.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str = "1",
        max_batch: int = 16,
        threads: int = 0,
        gpu: int = 0,
        observer: Observer | None = None,
    ) -> None:
        self.version = version
        self.spec = ModelSpec.read(folder)
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_bytes(), self.spec.n_vocab)
        self._device = Device.find(gpu)
        self.graphs = Graphs.open(folder, self.spec, self._device, threads)
        self.encoder = Encoder(self.graphs, self.spec, self._device)
        # What the encoder hears at the end of 30 s of silence stands behind every shorter window (see `slots.py`).
        silence = self.encoder.window(np.zeros(SAMPLE_RATE, np.float32), CHUNK_LENGTH_S)[:, :, -SILENCE_FRAMES:].copy()
        self.slots = Slots(self.graphs.decoder, self.spec, self._device, max_batch, silence)
        self.decoder = Decoder(self.slots, self.tokenizer)
        self.aligner = Aligner(self.graphs, self.spec, self._device, self.slots, self.tokenizer)
        self._stages = Stages(self.encoder, self.decoder, self.aligner, self.tokenizer)
        on_gpu = self._device.on_gpu
        self._schedule = Scheduler[Job](max_batch, on_gpu, ENCODED_TOGETHER if on_gpu else 1)
        self._observer = observer
        self._last_batch: list[Job] = []  # of the unit before, to see when a batch changes

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        arrived_s: float | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """Queue a request; `work` calls `finish` with its result, or with the error that ended it.

        `finish` must not raise. `arrived_s` (of `time.monotonic`) is when the request came, if that was before now. The
        times of its stages go into `timeline`.
        """
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
        self._schedule.add(job, came_s)

    def work(self) -> bool:
        """Do one unit of work: a piece of an encoding, a step or an alignment. Returns False when there is none to do.

        What goes wrong in a unit ends the requests that it was for, and no others.
        """
        began_s = time.monotonic()
        self._device.use()
        unit = self._schedule.next(began_s)
        if unit is None:
            return False
        jobs = [job for job in unit.jobs if job.started or self._start(job, began_s)]
        if jobs:
            attempts = [job.attempt for job in jobs]  # of this unit: the stage may move a job on to another
            outcomes: list[tuple[Job, Result | Exception]] = []
            try:
                self._stages.run(unit.stage, jobs)
                for job in jobs:
                    if job.stage is Stage.DONE:
                        outcomes.append((job, build_result(job, self.tokenizer, self.spec.name, self.version)))
            except Exception as error:  # whatever it is, the other requests go on
                log.exception("a unit of work failed: %s", unit.stage.value)
                outcomes = [(job, error) for job in jobs]
            self._note_times(unit.stage, jobs, attempts, began_s)
            for job, outcome in outcomes:
                self._schedule.remove(job)
                job.finish(outcome)
        if self._observer:
            for rank, lane in enumerate(LANES):
                n_active = sum(job.rank == rank for job in self._schedule.active)
                self._observer.counted(lane, len(self._schedule.waiting[rank]), n_active)
        return True

    def _start(self, job: Job, now_s: float) -> bool:
        """Begin a job with its first unit of work, or end it where its sender has gone; returns True if it began."""
        if job.is_cancelled():
            self._schedule.remove(job)
            job.finish(RequestCancelledError("cancelled before its turn"))
            return False
        job.started = True
        if job.timeline is not None:
            job.timeline.started_s = now_s
        if self._observer:
            self._observer.started(job.request.lane, now_s - job.arrived_s)
        return True

    def _note_times(self, stage: Stage, jobs: list[Job], attempts: list[Attempt], began_s: float) -> None:
        """Tell the observer of a unit that is done, and the timelines of the requests that were in it."""
        ended_s = time.monotonic()
        if self._observer:
            self._observer.worked(stage.value, len(jobs), ended_s - began_s)
        timelines = [job.timeline for job in jobs if job.timeline is not None]
        if timelines:
            for job, attempt in zip(jobs, attempts, strict=True):
                if job.timeline is not None:
                    job.timeline.add_unit(stage, attempt, began_s, ended_s, len(jobs))
            # Most steps are over the rows of the step before: only a change is worth a look at every pair of them.
            if jobs != self._last_batch:
                for timeline in timelines:
                    timeline.add_peers(timelines)
        self._last_batch = jobs

    def transcribe(self, requests: Sequence[Request]) -> list[Result]:
        """Serve requests and return their results in order; a result does not depend on the other requests.

        Raises what ended a request.
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
        """Run all graphs over silence in every shape that is prepared for, so that no request waits for it.

        To be called by the thread that will work: ONNX Runtime keeps what a GPU has captured by thread.
        """
        self._device.use()
        silence = Request(np.zeros(SAMPLE_RATE, np.float32))
        for (
            window_s
        ) in self.spec.windows_s:  # the windows one at a time: all of them together are as large as the slots
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
        self.decoder.step([Row(task, self.tokenizer)])  # the rows of the step before leave their slots
