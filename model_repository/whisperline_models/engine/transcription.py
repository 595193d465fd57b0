"""From audio to text: an engine that does one unit of work at a time for many requests at once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .alignment import time_words, token_starts
from .decoding import Decoder, Row, Task
from .encoding import Encoder
from .guards import compression_ratio
from .jobs import FULL_WINDOW_S, SAMPLES_PER_FRAME, Job, Part
from .log_mel import SAMPLE_RATE
from .prompts import build_prompt, start_tokens
from .requests import Request, RequestCancelled, Result
from .schedule import LANES, Scheduler, Stage
from .sessions import Device, ModelSpec, Sessions
from .slots import SILENCE_FRAMES, Slots
from .vocabulary import UNSPACED, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from . import requests
    from .decoding import Decoded
    from .schedule import Unit
    from .slots import Window

log = logging.getLogger(__name__)

ENCODED_TOGETHER = 8  # windows in one unit on a GPU; a processor is full with one


class Observer(Protocol):
    """Who is told of the work: seconds, rows, and requests by lane."""

    def started(self, lane: str, waited_s: float) -> None:
        """A request left the queue."""

    def worked(self, stage: str, n_rows: int, took_s: float) -> None:
        """A unit of work is done."""

    def counted(self, lane: str, waiting: int, active: int) -> None:
        """How many requests of a lane wait and are under way."""


class Engine:
    """A loaded version. Not thread-safe: one thread submits and works."""

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
        self.spec = ModelSpec.read(folder)
        self.version = version
        self._device = Device.find(gpu)
        self.sessions = Sessions.open(folder, self.spec, self._device, threads)
        self.encoder = Encoder(self.sessions, self.spec, self._device)
        self.vocabulary = Vocabulary.from_json((folder / "tokenizer.json").read_bytes(), self.spec.n_vocab)
        silence = self.encoder.window(np.zeros(SAMPLE_RATE, np.float32), FULL_WINDOW_S)[:, :, -SILENCE_FRAMES:].copy()
        self._slots = Slots(self.sessions.decoder, self.spec, self._device, max_batch, silence)
        self._decoder = Decoder(self._slots, self.vocabulary)
        on_gpu = self._device.on_gpu
        self._schedule = Scheduler[Job](max_batch, on_gpu, ENCODED_TOGETHER if on_gpu else 1)
        self._observer = observer

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        arrived_s: float | None = None,
    ) -> None:
        """Queue a request; `work` calls `finish` with its result, or with the error that ended it.

        `arrived_s` (of `time.monotonic`): when it came, where that is before now.
        """
        came_s = time.monotonic() if arrived_s is None else arrived_s
        self._schedule.add(Job(request, self.spec.windows_s, finish, is_cancelled, came_s), came_s)

    def work(self) -> bool:
        """Do one unit of work: a piece of an encoding, a step or an alignment. Returns False when there was none to do.

        What goes wrong in a unit ends the requests that it was for, and no others.
        """
        began_s = time.monotonic()
        self._device.use()
        unit = self._schedule.next(began_s)
        if unit is None:
            return False
        try:
            {Stage.ENCODE: self._encode, Stage.DECODE: self._step, Stage.ALIGN: self._align}[unit.stage](unit.jobs)
        except Exception as error:  # whatever it is, the others go on
            log.exception("a unit of work failed: %s", unit.stage.value)
            for job in unit.jobs:
                if job in self._schedule.active:
                    self._finish(job, error)
        self._observe(unit, began_s)
        return True

    def transcribe(self, requests: Sequence[Request]) -> list[Result]:
        """Serve requests; a row's result does not depend on the others. Raises what ended a request."""
        outcomes: dict[int, Result | Exception] = {}
        for index, request in enumerate(requests):
            self.submit(request, lambda outcome, index=index: outcomes.__setitem__(index, outcome))  # type: ignore[misc]
        while len(outcomes) < len(requests) and self.work():
            pass
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
        return [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, Result)]

    def warm_up(self) -> None:
        """Run all graphs over silence in every shape that is prepared for, so that the first request finds it so.

        By the thread that will work: what a GPU has captured belongs to a thread.
        """
        self._device.use()
        silence = Request(np.zeros(SAMPLE_RATE, np.float32))
        for window_s in self.spec.windows_s:  # one at a time: all of them together are as large as the slots
            task = self.task(silence, window_s)
            for together in range(2, self._schedule.encoded_together + 1):
                self.encoder.encode([self.encoder.mel(silence.audio, window_s)] * together)
        self.token_starts(task.window, task.prompt.tokens[:1], "en", SAMPLE_RATE)
        sizes = {self._device.bucket(n, self._slots.n_slots) for n in range(1, self._slots.n_slots + 1)}
        for size in sorted(sizes if self._device.on_gpu else {1, self._slots.n_slots}):
            self._decoder.step([Row(task, self.vocabulary) for _ in range(size)])
        self._decoder.step([Row(task, self.vocabulary)])

    def task(self, request: Request, window_s: float) -> Task:
        """The first decoding of a request over a window of this length."""
        prompt, language = build_prompt(request, self.vocabulary), request.language or "en"
        return Task(self.encoder.window(request.audio, window_s), prompt, language, request.timestamps)

    def decode(self, tasks: Sequence[Task]) -> list[Decoded]:
        """Decode windows in one batch, without guards."""
        return self._decoder.decode(tasks)

    def force(self, window: Window, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits (N, V) after each of these tokens, fed one by one, before any rule."""
        return self._decoder.force(window, tokens)

    def token_starts(
        self,
        window: Window,
        tokens: Sequence[int],
        language: str,
        n_samples: int,
        task: requests.Task = "transcribe",
    ) -> NDArray[np.float64]:
        """Where each of these text tokens begins, and last where the text ends: seconds of the window."""
        vocabulary, device, aligner = self.vocabulary, self._device, self.sessions.aligner
        prompt = start_tokens(language, task, vocabulary)
        fed = device.mirror(np.array([[*prompt, vocabulary.no_timestamps, *tokens, vocabulary.end]], np.int64))
        names = [f"cross_{part}_{layer}" for layer in range(self.spec.n_text_layer) for part in ("key", "value")]
        given = {"tokens": fed} | {
            name: part[None] for name, part in zip(names, self._slots.followed(window), strict=True)
        }
        binding = aligner.io_binding()
        for value in aligner.get_inputs():
            device.bind_input(binding, value.name, given[value.name])
        binding.bind_output("weights")
        device.run(aligner, binding)
        (weights,) = binding.copy_outputs_to_cpu()
        n_frames = max(1, n_samples // SAMPLES_PER_FRAME)
        return token_starts(weights[:, :, :n_frames], len(prompt))

    def _encode(self, jobs: Sequence[Job]) -> None:
        jobs = [job for job in jobs if not (job.is_new and self._is_dropped(job))]
        if not jobs:
            return
        piece = jobs[0].pieces_done
        states = [job.state if piece else self.encoder.mel(job.part.audio, job.window_s) for job in jobs]
        for job, state in zip(jobs, self.encoder.advance(piece, states), strict=True):
            if piece < self.encoder.n_pieces - 1:
                job.take_state(state)
            else:
                job.take_window(state, self.vocabulary)

    def _is_dropped(self, job: Job) -> bool:
        """Start a job, unless its sender has gone."""
        if job.is_cancelled():
            self._finish(job, RequestCancelled("cancelled before its turn"))
            return True
        if self._observer:
            self._observer.started(job.request.lane, time.monotonic() - job.arrived_s)
        return False

    def _step(self, jobs: Sequence[Job]) -> None:
        rows = {id(job.row): job for job in jobs}
        for row in self._decoder.step([job.row for job in jobs if job.row]):
            job = rows[id(row)]
            if job.take_decoded(row.decoded(), self.vocabulary):
                self._finish(job, self._result(job, ()))

    def _align(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._finish(job, self._result(job, [word for part in job.heard for word in self._words(part)]))

    def _finish(self, job: Job, outcome: Result | Exception) -> None:
        self._schedule.remove(job)
        job.finish(outcome)

    def _observe(self, unit: Unit[Job], began_s: float) -> None:
        if self._observer:
            self._observer.worked(unit.stage.value, len(unit.jobs), time.monotonic() - began_s)
            for rank, lane in enumerate(LANES):
                active = sum(job.rank == rank for job in self._schedule.active)
                self._observer.counted(lane, len(self._schedule.waiting[rank]), active)

    def _result(self, job: Job, words: Sequence[dict[str, str | int | float]]) -> Result:
        first, shown = job.parts[0], job.heard or job.parts
        text = "".join(self.vocabulary.decode(part.decoded.tokens) for part in job.heard).strip()
        weights = [len(part.decoded.tokens) + 1 for part in shown]
        return Result(
            text=text,
            language=first.decoded.language,
            tokens=tuple(token for part in job.heard for token in self._shifted(part)),
            words=tuple(words),
            avg_logprob=float(np.average([part.decoded.avg_logprob for part in shown], weights=weights)),
            no_speech_prob=first.decoded.no_speech_prob,
            compression_ratio=compression_ratio(text),
            window_s=first.window_s,
            model=self.spec.name,
            version=self.version,
        )

    def _shifted(self, part: Part) -> list[int]:
        """The tokens of a part, timestamps counted from the start of the request's audio."""
        begin, last = self.vocabulary.timestamp_begin, self.vocabulary.n_vocab - 1
        shift = part.start_samples // SAMPLES_PER_FRAME
        return [min(token + shift, last) if token >= begin else token for token in part.decoded.tokens]

    def _words(self, part: Part) -> list[dict[str, str | int | float]]:
        decoded, start_s = part.decoded, part.start_samples / SAMPLE_RATE
        pairs = zip(decoded.tokens, decoded.logprobs, strict=True)
        spoken = [(token, float(np.exp(logprob))) for token, logprob in pairs if token < self.vocabulary.end]
        if not spoken:
            return []
        tokens, probabilities = zip(*spoken, strict=True)
        starts_s = self.token_starts(part.window, tokens, decoded.language, part.audio.size, part.request.task)
        words = self.vocabulary.split_words(tokens, decoded.language)
        return [
            {
                "word": word.word.strip(),
                "start_ms": round((start_s + word.start_s) * 1000),
                "end_ms": round((start_s + word.end_s) * 1000),
                "confidence": word.confidence,
            }
            for word in time_words(words, starts_s, probabilities, spaced=decoded.language not in UNSPACED)
        ]
