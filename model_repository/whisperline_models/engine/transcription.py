"""The engine, which turns audio into text for many requests at once, one unit of work at a time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .aligner import Aligner
from .audio import CHUNK_LENGTH_S, SAMPLE_RATE
from .decoding import Decoder, DecodingTask, Row
from .encoder import Encoder
from .errors import RequestCancelledError, RequestError
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

ENCODED_TOGETHER = 8  # the most windows in one unit on a GPU; on a CPU, a single window uses all cores


class Observer(Protocol):
    """Receives the engine's measurements, for metrics."""

    def started(self, lane: str, waited_s: float) -> None:
        """Record that a request's first unit of work begins, `waited_s` after the request arrived."""

    def worked(self, stage: str, n_rows: int, took_s: float) -> None:
        """Record that a unit of work with `n_rows` jobs is done."""

    def counted(self, lane: str, waiting: int, active: int) -> None:
        """Record how many requests of a lane are waiting, and how many are active."""


class Engine:
    """A loaded version. It is not thread-safe: the same thread must call `submit` and `work`.

    `graphs`, `encoder`, `decoder`, `slots` and `aligner` are public for the tools that compare them with the reference.
    The tools may use them only while the engine has no requests.
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
        # The last frames of 30 s of encoded silence, which follow every shorter window (see `slots.py`).
        silence = self.encoder.window(np.zeros(SAMPLE_RATE, np.float32), CHUNK_LENGTH_S)[:, :, -SILENCE_FRAMES:].copy()
        self.slots = Slots(self.graphs.decoder, self.spec, self._device, max_batch, silence)
        self.aligner = Aligner(self.graphs, self.spec, self._device, self.slots, self.tokenizer)
        self.decoder = Decoder(self.slots, self.aligner, self.tokenizer)
        self._stages = Stages(self.encoder, self.decoder, self.aligner, self.tokenizer)
        on_gpu = self._device.on_gpu
        self._schedule = Scheduler[Job](max_batch, on_gpu, ENCODED_TOGETHER if on_gpu else 1)
        self._observer = observer
        self._last_batch: list[Job] = []  # the jobs of the previous unit, to detect that a batch changed

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        arrived_s: float | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """Queue a request. Later, `work` calls `finish` with its result, or with the error that ended it.

        `finish` must not raise. `arrived_s` (from `time.monotonic`) is when the request arrived, now by default. The
        engine records the times of its stages in `timeline`.
        """
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
        self._schedule.add(job, came_s)

    def work(self) -> bool:
        """Do one unit of work: a piece of an encoding, a step or an alignment. Return False if there was none to do.

        An exception in a unit ends the requests in that unit, and no others.
        """
        began_s = time.monotonic()
        self._device.use()
        unit = self._schedule.next(began_s)
        if unit is None:
            return False
        jobs = [job for job in unit.jobs if job.started or self._start(job, began_s)]
        if jobs:
            attempts = [job.attempt for job in jobs]  # remembered, because a unit may move a job on to its next attempt
            outcomes: list[tuple[Job, Result | Exception]] = []
            try:
                self._stages.run(unit.stage, jobs)
                for job in jobs:
                    if job.stage is Stage.DONE:
                        outcomes.append((job, build_result(job.parts, self.tokenizer, self.spec.name, self.version)))
            except Exception as error:  # of any kind: the other requests go on
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
        """Mark a job as started, or end it if its sender has cancelled it. Return True if it started."""
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
        """Report a finished unit to the observer, and to the timelines of the requests in it."""
        ended_s = time.monotonic()
        if self._observer:
            self._observer.worked(stage.value, len(jobs), ended_s - began_s)
        timelines = [job.timeline for job in jobs if job.timeline is not None]
        if timelines:
            for job, attempt in zip(jobs, attempts, strict=True):
                if job.timeline is not None:
                    job.timeline.add_unit(stage, attempt, began_s, ended_s, len(jobs))
            # Most steps have the same rows as the previous one. Every pair of rows is visited only after a change.
            if jobs != self._last_batch:
                for timeline in timelines:
                    timeline.add_peers(timelines)
        self._last_batch = jobs

    def transcribe(self, requests: Sequence[Request]) -> list[Result]:
        """Transcribe requests together and return their results in order. No result depends on the other requests.

        Raises the error of the first request that failed.
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

        The thread that calls `work` must call this, because ONNX Runtime keeps captured CUDA graphs by thread.
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
