"""One session that this process owns: its state, its latest decided progress, and the task that takes its steps.

Every decision is written to the progress log before its event is published, and counts only if it is the log's first
record of its revision. If another process was first, `LostRaceError` is raised and the partition is reloaded.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Finalized,
    Partial,
    Progress,
    SegmentEnd,
    SessionEnd,
    SpeechStarted,
    UtteranceEnd,
)
from whisperline_runtime.logs import bind
from whisperline_runtime.tracing import Status, StatusCode, exemplar, tracer

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import request_of
from whisperline_transcriber.errors import LostRaceError
from whisperline_transcriber.log.progress import ProgressLog
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.log.segment_trace import RecordOrigin, RecordOrigins, SegmentTrace
from whisperline_transcriber.log.watermark import Watermark
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.audio import milliseconds
from whisperline_transcriber.stream.batcher import VadBatcher
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.session import (
    AnswerFinalize,
    AttachConnection,
    EndSession,
    MoveReplayStart,
    SendUtteranceEnd,
    Session,
    Step,
    Transcribe,
)
from whisperline_transcriber.stream.words import session_words

_tracer = tracer(__name__)

MAX_LATE_RESUMES = 16  # RESUMEs read after the END and answered once the session has ended; only the last are kept


@dataclass(frozen=True)
class Services:
    """The parts of the process that all sessions share."""

    settings: Settings
    publisher: Publisher
    progress: ProgressLog
    admission: Admission
    vad: VadBatcher
    owner: str  # this process, in progress records


class SessionTask:
    """One session of a partition.

    `append_record` takes the session's records and `advance` reacts to its frames, both synchronously; `run` takes the
    steps in order. `spawn` starts work beside the steps: partials, and speculations, which decode the open segment
    before it closes. If it closes as the last speculation assumed, the speculation's transcript is that of the final.
    """

    def __init__(
        self,
        session: Session,
        progress: Progress | None,
        *,
        partition: int,
        watermark: Watermark,
        services: Services,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
    ) -> None:
        self.session = session
        self.progress = progress  # the latest decided progress; None until the first step, the START, is decided
        self.last_record_s = time.monotonic()
        self._partition = partition
        self._watermark = watermark
        self._services = services
        self._spawn = spawn
        self._has_work = asyncio.Event()
        self._is_partial_in_flight = False
        self._speculation: tuple[Window, asyncio.Future[Transcript | None]] | None = None  # the last one
        self._started_segment = -1  # first sample of the last segment whose SpeechStarted was sent
        self._idle_end_for: str | None = None  # the connection for which an END was written
        self._late_resumes: deque[AudioChunk] = deque(maxlen=MAX_LATE_RESUMES)
        self._origins = RecordOrigins()
        self._segments: dict[int, SegmentTrace] = {}  # open or undecided segments, by their first sample

    @property
    def is_busy(self) -> bool:
        """True while steps wait or are in progress."""
        return len(self.session.steps) > 0

    def append_record(self, chunk: AudioChunk, record: ConsumerRecord) -> None:
        """Append a record of the session, in the order of the log."""
        self.last_record_s = time.monotonic()
        session = self.session
        if session.has_read_end and chunk.kind is AudioKind.RESUME:
            self._late_resumes.append(chunk)
        else:
            start = session.next_position
            if session.append_record(chunk, record.offset):
                if chunk.kind in {AudioKind.AUDIO, AudioKind.FINALIZE}:
                    end = session.next_position or 0
                    self._watermark.need_audio(session.id, record.offset, end)
                    if chunk.kind is AudioKind.AUDIO:
                        start = chunk.position if start is None else start
                        arrived_s = record.timestamp / 1000
                        self._origins.append(RecordOrigin(record.offset, start, end, arrived_s, chunk.traceparent))
                else:
                    self._watermark.hold(session.id, record.offset)
        self._has_work.set()
        self._services.vad.add(session, self.advance)

    def advance(self) -> None:
        """Start the work that has become due: wake `run`, request a speculation or a partial."""
        session = self.session
        if session.steps:
            self._has_work.set()
        if self.progress is None:
            return
        admission = self._services.admission
        # A file's text is never urgent, and its lane may decode otherwise (the model's settings have a beam for each).
        is_live = session.options.priority == "live"
        speculation = session.take_due_speculation(eagerly=is_live and admission.admits_speculation)
        if speculation is not None:
            if self._speculation is not None and self._speculation[0] != speculation:
                metrics.SPECULATIONS.labels("discarded").inc()
            transcript: asyncio.Future[Transcript | None] = asyncio.get_running_loop().create_future()
            self._speculation = speculation, transcript
            self._spawn(self._speculate(speculation, transcript, must_answer=session.awaits_answer))
        if self._is_partial_in_flight:
            return
        due = session.take_due_partial(partial(admission.admits_partial, session.id))
        if due is None:
            return
        self._is_partial_in_flight = True
        self._spawn(self._partial(due))

    async def end_if_idle(self, now_s: float) -> None:
        """Write an END if the session has been idle for too long, because its client and its gateway are gone."""
        session = self.session
        if self.progress is None or session.has_read_end:
            return
        is_idle = now_s - self.last_record_s > self._services.settings.idle_timeout_s
        # One END for each connection: if another connection resumes before the END is read, the END has no effect.
        if is_idle and self._idle_end_for != session.connection_id:
            self._idle_end_for = session.connection_id
            await self._services.publisher.append_audio(events.idle_end(session, self.progress), self._partition)

    async def run(self) -> int:
        """Take the session's steps in order until it has ended; return the offset of the record that ended it."""
        steps = self.session.steps
        end_offset: int | None = None
        try:
            with bind(session_id=self.session.id, partition=self._partition):
                while end_offset is None:
                    await self._has_work.wait()
                    self._has_work.clear()
                    while (step := steps.first) is not None:
                        await self._take(step)
                        steps.finish_first()
                        if isinstance(step, EndSession):
                            end_offset = step.offset
        finally:
            for trace in self._segments.values():  # undecided: the next owner of the partition decides them
                trace.end()
        return end_offset

    async def _take(self, step: Step) -> None:
        owner, publisher = self._services.owner, self._services.publisher
        if isinstance(step, AttachConnection):
            progress = await self._decide(events.attach_progress(self.progress, step, self.session, owner))
            self._watermark.release(self.session.id, step.offset)
            if step.chunk.kind is AudioKind.START:
                why = await self._services.admission.refusal(self.session.id, self.session.options)
                if why:
                    self.session.refuse(step.offset, why)
                    return
            answer = events.attached(events.ids_of(progress, _now_ms()), step, progress)
            await publisher.send(answer, progress.reply_partition)
            return

        progress_before = self.progress
        if progress_before is None:
            raise RuntimeError("the first step of a session is to attach its connection")
        reply_partition, ids = progress_before.reply_partition, events.ids_of(progress_before, _now_ms())
        match step:
            case Transcribe():
                await self._transcribe(progress_before, step)
            case MoveReplayStart():
                told_ms = self.session.last_word_end_ms
                await self._decide(events.silence_progress(progress_before, step, told_ms, owner))
            case AnswerFinalize(position_ms):
                await publisher.send(Finalized(**ids, position_ms=position_ms), reply_partition)
            case SendUtteranceEnd(last_word_end_ms):
                await publisher.send(UtteranceEnd(**ids, last_word_end_ms=last_word_end_ms), reply_partition)
            case EndSession(reason=reason, message=message):
                end = SessionEnd(
                    **ids,
                    segment_count=progress_before.next_segment_index,
                    duration_ms=self.session.duration_ms,
                    reason=reason,
                    message=message,
                )
                ended = await self._decide(events.end_progress(progress_before, end, owner))
                await publisher.send(end, reply_partition)
                while self._late_resumes:
                    late = self._late_resumes.popleft()
                    await publisher.send(events.already_over(late, ended, _now_ms()), late.reply_partition)

    async def _transcribe(self, progress: Progress, step: Transcribe) -> None:
        began_s = time.monotonic()
        session, services, segment = self.session, self._services, step.segment
        start, end = session.source_position(segment.start), session.source_position(segment.replay_start)
        speech_end = self._origins.at(session.source_position(segment.speech_end))
        trace = self._trace_of(segment.start, progress.next_segment_index)
        trace.link(self._origins.between(start, end))
        with trace.current():
            window = session.window(segment.start, segment.end)
            transcript = await self._speculated(window)
            if transcript is None:
                samples = session.read(window)
                transcript = await services.admission.decode_final(
                    samples, request_of(session, window), session.options.priority
                )
            decoded = events.Decoded(segment, window, transcript, step.level)
            proposed = events.segment_progress(progress, decoded, session, services.owner, _now_ms())
            final = proposed.final
            if final is not None:
                await self._announce(segment.start)
            with _tracer.start_as_current_span("decide", record_exception=False, set_status_on_exception=False) as span:
                try:
                    await self._decide(proposed)
                except LostRaceError as error:
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                    raise
            ids = events.ids_of(progress, _now_ms())
            if final is not None:
                await services.publisher.send(final, progress.reply_partition)
            elif self._started_segment == segment.start and session.options.interim_results:
                # Its partials had words, which no final replaces.
                nothing = Partial(
                    **ids,
                    segment_index=progress.next_segment_index,
                    start_ms=milliseconds(segment.start),
                    end_ms=milliseconds(segment.end),
                    text="",
                    stable_text="",
                )
                await services.publisher.send_best_effort(nothing, progress.reply_partition)
            if final is None and segment.reason is SegmentEnd.FINALIZE:
                finalized = Finalized(**ids, position_ms=milliseconds(segment.replay_start))
                await services.publisher.send(finalized, progress.reply_partition)

        if final is not None:
            priority, link = session.options.priority, exemplar(trace.span)
            metrics.FINAL_SECONDS.labels(priority).observe(time.monotonic() - began_s, link)
            if speech_end is not None:
                elapsed_s = time.time() - speech_end.arrived_s
                metrics.SPEECH_END_TO_FINAL_SECONDS.labels(priority).observe(elapsed_s, link)
        trace.end()
        del self._segments[segment.start]
        services.vad.add(session, self.advance)  # what waited for this decision may have become due

    async def _decide(self, proposed: Progress) -> Progress:
        """Propose the session's next progress; return it if it counts. Raises `LostRaceError` if another came first."""
        counted = await self._services.progress.propose(self._partition, proposed)
        if counted != proposed:
            metrics.SUPERSEDED_DECISIONS.inc()
            raise LostRaceError(f"session {self.session.id}: {counted.owner} wrote revision {counted.revision} first")
        self.progress = counted
        position = self.session.decided(counted)
        self._watermark.release_audio(self.session.id, position)
        self._origins.drop_before(position)
        return counted

    async def _speculate(self, window: Window, result: asyncio.Future[Transcript | None], *, must_answer: bool) -> None:
        """Decode a window as that of the final, and let the session hear it."""
        session, admission = self.session, self._services.admission
        transcript: Transcript | None = None
        trace = self._trace_of_open(window)
        try:
            with bind(session_id=session.id, partition=self._partition), trace.current():
                samples = session.read(window)
                request = request_of(session, window)
                if must_answer:
                    transcript = await admission.decode_final(samples, request, session.options.priority)
                else:
                    transcript = await admission.speculate(samples, request)
                if transcript is None:
                    metrics.SPECULATIONS.labels("failed").inc()
                    session.forget_speculation(window)
                else:
                    await self._hear(window, transcript, trace)
        finally:
            if not result.done():
                result.set_result(transcript)
        self._services.vad.add(session, self.advance)  # frames may have waited for the answer

    async def _speculated(self, window: Window) -> Transcript | None:
        """Return the transcript of a window that is or was decoded already, else None."""
        if self._speculation is None:
            return None
        speculated, result = self._speculation
        self._speculation = None
        if speculated != window:
            metrics.SPECULATIONS.labels("discarded").inc()
            return None
        transcript = await result
        if transcript is not None:
            metrics.SPECULATIONS.labels("used").inc()
        return transcript

    async def _partial(self, window: Window) -> None:
        session, admission, trace = self.session, self._services.admission, self._trace_of_open(window)
        try:
            with bind(session_id=session.id, partition=self._partition), trace.current():
                samples = session.read(window)
                transcript = await admission.decode_partial(samples, request_of(session, window))
                if transcript is not None:
                    await self._hear(window, transcript, trace)
        finally:
            self._is_partial_in_flight = False

    async def _hear(self, window: Window, transcript: Transcript, trace: SegmentTrace) -> None:
        """Let the session hear a transcript of its open segment, and tell the client what is known of the text."""
        hypothesis, progress = self.session.hear(window, transcript), self.progress
        if self.session.steps:
            self._has_work.set()
        if hypothesis is None or not hypothesis.text or progress is None:
            return
        await self._announce(window.segment_start)
        if not self.session.options.interim_results:
            return
        start_ms, end_ms = milliseconds(window.segment_start), milliseconds(window.end)
        event = Partial(
            **events.ids_of(progress, _now_ms()),
            segment_index=progress.next_segment_index,
            start_ms=start_ms,
            end_ms=end_ms,
            text=hypothesis.text,
            stable_text=hypothesis.stable_text,
            words=session_words(hypothesis.words, audio_start_ms=0, start_ms=start_ms, end_ms=end_ms),
            confidence=hypothesis.confidence,
        )
        was_sent = await self._services.publisher.send_best_effort(event, progress.reply_partition)
        if was_sent and not trace.has_partial and trace.origin is not None:
            trace.has_partial = True
            elapsed_s = time.time() - trace.origin.arrived_s
            metrics.FIRST_PARTIAL_SECONDS.observe(elapsed_s, exemplar(trace.span))

    async def _announce(self, segment_start: int) -> None:
        """Tell the client that speech has started, once for each segment."""
        progress = self.progress
        if self._started_segment == segment_start or progress is None:
            return
        self._started_segment = segment_start
        started = SpeechStarted(
            **events.ids_of(progress, _now_ms()),
            segment_index=progress.next_segment_index,
            start_ms=milliseconds(segment_start),
        )
        await self._services.publisher.send_best_effort(started, progress.reply_partition)

    def _trace_of_open(self, window: Window) -> SegmentTrace:
        progress = self.progress
        return self._trace_of(window.segment_start, progress.next_segment_index if progress else 0)

    def _trace_of(self, segment_start: int, segment_index: int) -> SegmentTrace:
        """Return the trace of an open or undecided segment; begin one if it has none yet."""
        trace = self._segments.get(segment_start)
        if trace is None:
            origin = self._origins.at(self.session.source_position(segment_start))
            trace = SegmentTrace(self.session.id, self._partition, segment_index, origin)
            self._segments[segment_start] = trace
        return trace


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
