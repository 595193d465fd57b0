"""One partition that this process owns: its sessions, and what is done for each, step by step and durably.

Every decision is written to the progress log before anybody is told of it, and holds only if it was the first.
Where another process was first, `Superseded` is raised and the partition is taken up anew from the log.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Event,
    Finalized,
    Partial,
    Progress,
    Resumed,
    SessionEnd,
    SessionStart,
    SpeechStarted,
    UtteranceEnd,
)

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.admission import Decoder
from whisperline_transcriber.log.progress import ProgressLog
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.log.watermark import Watermark
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream import events as told
from whisperline_transcriber.stream.audio import SAMPLE_RATE
from whisperline_transcriber.stream.hypothesis import agree
from whisperline_transcriber.stream.segmentation import Closed, Segmentation
from whisperline_transcriber.stream.session import (
    Advance,
    Attach,
    Finish,
    Session,
    Step,
    TellFinalized,
    TellUtteranceEnd,
    Transcribe,
    milliseconds,
)

log = logging.getLogger(__name__)

LATE = 16  # connections that are told that their session is over when it is; of more, the last


class Superseded(Exception):
    """Another process has decided before this one: the partition must be taken up anew."""


@dataclass(frozen=True)
class Services:
    """What every partition of a process shares."""

    settings: Settings
    publisher: Publisher
    progress: ProgressLog
    decoder: Decoder
    owner: str  # this process, in progress records


@dataclass
class Live:
    """A session in memory, with the last of its progress that counts and the task that takes its steps."""

    session: Session
    progress: Progress | None
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    seen_s: float = field(default_factory=time.monotonic)  # when its last record was read
    partial_busy: bool = False
    ending: str | None = None  # the connection for which an END was written; one that resumes in time is another
    late: deque[AudioChunk] = field(default_factory=lambda: deque(maxlen=LATE))  # RESUMEs that came after its END

    @property
    def next_segment_index(self) -> int:
        """The index of the next segment to be decided."""
        return self.progress.next_segment_index if self.progress else 0


class Partition:
    """The sessions of one partition of `audio_chunks`, from `position` on, the next offset to be read.

    `failed` is called with the exception that ended one of its tasks.
    """

    def __init__(
        self, number: int, position: int, services: Services, failed: Callable[[int, BaseException], None]
    ) -> None:
        self.number = number
        self.watermark = Watermark(position)
        self.live: dict[str, Live] = {}
        self._services = services
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: dict[str, tuple[int, float]] = {}  # from which watermark and time a session can be forgotten

    async def restore(self, end: int) -> None:
        """Take the sessions up where the log left them; `end` is where the partition ends now."""
        for progress in list(self._services.progress.sessions(self.number).values()):
            if progress.final is not None:
                await self._services.publisher.event(progress.final, progress.reply_partition)
            if progress.end is not None:
                await self._services.publisher.event(progress.end, progress.reply_partition)
                self._remember(progress.session_id, end)
            else:
                session = Session.restored(progress, self._segmentation(progress.options.endpointing_ms))
                self._adopt(Live(session, progress))

    async def receive(self, chunk: AudioChunk, record: ConsumerRecord) -> Live | None:
        """Take a record; return the session if it may have work for the voice-activity model."""
        live = self.live.get(chunk.session_id)
        if live is None:
            live = await self._unknown(chunk)
        if live is None:
            return None
        live.seen_s = time.monotonic()
        if live.session.ended and chunk.kind is AudioKind.RESUME:
            live.late.append(chunk)
        elif live.session.receive(chunk, record.offset):
            self._need(live.session, chunk, record.offset)
        live.stirred.set()
        return live

    def speech_started(self, live: Live) -> None:
        """Tell, without waiting, that a segment has opened."""
        start = live.session.take_speech_started()
        if start is not None and live.progress is not None:
            index = live.next_segment_index + live.session.undecided
            event = SpeechStarted(**self._ids(live), segment_index=index, start_ms=milliseconds(start))
            self._spawn(self._services.publisher.event_soon(event, live.progress.reply_partition))

    def partial(self, live: Live) -> None:
        """Ask for a partial, if one is due and there is room for it."""
        decoder = self._services.decoder
        if live.partial_busy or live.progress is None:
            return
        span = live.session.partial(decoder.cadence_samples)
        if span is None:
            return
        if not decoder.partial_allowed:
            metrics.SHED.labels("triton").inc()
            return
        live.partial_busy = True
        self._spawn(self._partial(live, *span))

    def not_read(self, now_s: float) -> None:
        """Note that the log could not be read until now: what it may hold of the sessions is not known."""
        for live in self.live.values():
            live.seen_s = now_s

    async def end_idle(self, now_s: float) -> None:
        """Write an END for every session that had no records for long: its client and gateway are gone."""
        for live in list(self.live.values()):
            idle = now_s - live.seen_s > self._services.settings.idle_timeout_s
            connection_id = live.session.connection_id
            if idle and live.ending != connection_id and not live.session.ended and live.progress is not None:
                live.ending = connection_id
                await self._services.publisher.audio(told.idle_end(live.session, live.progress), self.number)

    async def bury(self, committed: int, now_s: float) -> None:
        """Write the tombstones of sessions that no replay from `committed` can reach and no client asks for."""
        for session_id, (offset, due_s) in list(self._over.items()):
            if committed >= offset and now_s >= due_s:
                await self._services.progress.bury(self.number, session_id)
                del self._over[session_id]

    @property
    def backlog_s(self) -> float:
        """How much audio waits in memory."""
        return sum(live.session.backlog_samples for live in self.live.values()) / SAMPLE_RATE

    @property
    def busy(self) -> bool:
        """Whether any session has steps that were not taken yet."""
        return any(live.session.steps or live.session.undecided for live in self.live.values())

    async def close(self) -> None:
        """Stop every task. What was not decided yet is left to the next owner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.live.clear()

    async def _unknown(self, chunk: AudioChunk) -> Live | None:
        over = self._services.progress.sessions(self.number).get(chunk.session_id)
        if chunk.kind is AudioKind.START and over is None:
            session = Session(chunk, self._segmentation(chunk.options.endpointing_ms))
            return self._adopt(Live(session, None))
        metrics.STALE.inc()
        if chunk.kind is AudioKind.RESUME:
            await self._services.publisher.event(told.already_over(chunk, over), chunk.reply_partition)
        return None

    def _adopt(self, live: Live) -> Live:
        self.live[live.session.id] = live
        self._spawn(self._take_steps(live))
        live.stirred.set()
        return live

    def _need(self, session: Session, chunk: AudioChunk, offset: int) -> None:
        if chunk.kind in {AudioKind.AUDIO, AudioKind.FINALIZE}:
            self.watermark.audio(session.id, offset, session.expected or 0)
        else:
            self.watermark.hold(session.id, offset)

    async def _take_steps(self, live: Live) -> None:
        while not (live.progress and live.progress.end):
            await live.stirred.wait()
            live.stirred.clear()
            while live.session.steps:
                await self._take(live, live.session.steps[0])
                live.session.steps.popleft()
        self._forget(live)

    async def _take(self, live: Live, step: Step) -> None:
        match step:
            case Attach():
                await self._attach(live, step)
            case Transcribe(segment):
                await self._transcribe(live, segment)
            case Advance(base, speech_end_ms):
                await self._decide(live, base=base, speech_end_ms=speech_end_ms, final=None)
            case TellFinalized(position_ms):
                await self._tell(live, Finalized(**self._ids(live), position_ms=position_ms))
            case TellUtteranceEnd(last_word_end_ms):
                await self._tell(live, UtteranceEnd(**self._ids(live), last_word_end_ms=last_word_end_ms))
            case Finish():
                await self._finish(live, step)

    async def _attach(self, live: Live, step: Attach) -> None:
        resumed = step.chunk.kind is AudioKind.RESUME
        await self._decide(
            live,
            connection_id=step.chunk.connection_id,
            client_id=step.chunk.client_id,
            reply_partition=step.chunk.reply_partition,
            sample_rate=step.chunk.sample_rate,
            channels=step.chunk.channels,
            options=live.session.options,
            attached_at=step.offset,
            final=None,
        )
        self.watermark.release(live.session.id, step.offset)
        ids = self._ids(live)
        if resumed:
            await self._tell(live, Resumed(**ids, position=step.position, next_segment_index=live.next_segment_index))
        else:
            rate, channels = step.chunk.sample_rate, step.chunk.channels
            start = SessionStart(**ids, sample_rate=rate, channels=channels, options=live.session.options)
            await self._tell(live, start)

    async def _transcribe(self, live: Live, segment: Closed) -> None:
        began_s = time.monotonic()
        samples = live.session.samples(segment.start, segment.end)
        transcript = await self._services.decoder.final(live.session.id, samples, live.session.options)
        position = live.session.source(segment.end)
        final = told.final(self._ids(live), live.next_segment_index, segment, transcript, position)
        speech_end_ms = milliseconds(segment.speech_end)
        index = live.next_segment_index + 1
        await self._decide(live, base=segment.end, next_segment_index=index, speech_end_ms=speech_end_ms, final=final)
        await self._tell(live, final)
        live.session.undecided -= 1
        metrics.FINAL.labels(live.session.options.priority).observe(time.monotonic() - began_s)

    async def _finish(self, live: Live, step: Finish) -> None:
        end = SessionEnd(
            **self._ids(live),
            segment_count=live.next_segment_index,
            duration_ms=live.session.end_ms(),
            reason="idle" if step.idle else "closed",
        )
        await self._decide(live, final=None, end=end)
        await self._tell(live, end)
        while live.late:
            chunk = live.late.popleft()
            await self._services.publisher.event(told.already_over(chunk, live.progress), chunk.reply_partition)
        self._remember(live.session.id, step.offset + 1)

    async def _decide(self, live: Live, **changes: Any) -> None:
        """Write the session's next progress and go on only if it counts."""
        before = live.progress
        new = {"session_id": live.session.id, "base": 0, "next_segment_index": 0}
        fields: dict[str, Any] = dict(before) if before else new
        mine = {"owner": self._services.owner, "revision": before.revision + 1 if before else 1}
        proposed = Progress.model_validate({**fields, **changes, **mine})
        counted = await self._services.progress.propose(self.number, proposed)
        if counted != proposed:
            metrics.SUPERSEDED.inc()
            raise Superseded(f"session {live.session.id}: {counted.owner} wrote revision {counted.revision} first")
        live.progress = counted
        if "base" in changes:
            self.watermark.done(live.session.id, live.session.done(counted.base))

    async def _tell(self, live: Live, event: Event) -> None:
        if live.progress is not None:
            await self._services.publisher.event(event, live.progress.reply_partition)

    async def _partial(self, live: Live, start: int, end: int) -> None:
        try:
            samples = live.session.samples(start, end)
            decoder, session = self._services.decoder, live.session
            transcript = await decoder.partial(session.id, samples, session.options)
            closed = live.session.segment_start != start or live.session.undecided
            if transcript is None or closed or live.progress is None:
                return
            said = agree(live.session.hypothesis, transcript.text)
            live.session.hypothesis = said
            event = Partial(
                **self._ids(live),
                segment_index=live.next_segment_index,
                start_ms=milliseconds(start),
                end_ms=milliseconds(end),
                text=said.text,
                stable_text=said.stable_text,
            )
            await self._services.publisher.event_soon(event, live.progress.reply_partition)
        finally:
            live.partial_busy = False

    def _ids(self, live: Live) -> dict[str, Any]:
        ids = {"session_id": live.session.id, "time_ms": told.now_ms()}
        if live.progress is None:
            return {**ids, "connection_id": live.session.connection_id, "client_id": ""}
        return {**ids, "connection_id": live.progress.connection_id, "client_id": live.progress.client_id}

    def _remember(self, session_id: str, offset: int) -> None:
        self._over[session_id] = (offset, time.monotonic() + self._services.settings.remember_s)

    def _forget(self, live: Live) -> None:
        self.watermark.forget(live.session.id)
        self.live.pop(live.session.id, None)

    def _segmentation(self, end_silence_ms: int) -> Segmentation:
        return self._services.settings.segmentation(end_silence_ms)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(self.number, error)
