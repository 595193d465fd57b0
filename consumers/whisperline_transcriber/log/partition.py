"""One partition of `audio_chunks` that this process owns: its sessions and its read position."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord
from whisperline_contracts import AudioChunk, AudioKind, Progress

from whisperline_transcriber import metrics
from whisperline_transcriber.errors import LostRaceError
from whisperline_transcriber.log.session_task import Services, SessionTask
from whisperline_transcriber.log.watermark import Watermark
from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.audio import SAMPLE_RATE
from whisperline_transcriber.stream.session import Session

log = logging.getLogger(__name__)

CAUGHT_UP_S = 5.0  # a partition counts as caught up if the last record read is younger than this


@dataclass(frozen=True)
class Lag:
    """The lag of this process behind the end of a partition."""

    records: int
    age_s: float | None  # age of the last record read; 0 at the end of the partition, None if nothing was read yet

    @property
    def is_caught_up(self) -> bool:
        """True if the records not yet read are too young to matter."""
        return self.age_s is not None and self.age_s < CAUGHT_UP_S


class Partition:
    """The sessions of partition `number` and its read position; `next_offset` is the next offset to read.

    Call `restore` first, `append_record` for each record that follows, and `stop` at the end. The sessions' tasks run
    in the group `tasks`, and a task that fails ends the group. The exception is a session that lost a race: it sets
    `lost_race`, and the caller must stop the partition and make a new one.
    """

    def __init__(self, number: int, next_offset: int, services: Services, tasks: asyncio.TaskGroup) -> None:
        self.number = number
        self.watermark = Watermark(next_offset)
        self.sessions: dict[str, SessionTask] = {}
        self.lost_race: LostRaceError | None = None
        self.committed: int | None = None  # the low watermark committed last
        self.is_followed = False  # polls were answered recently and without a gap: see `note_poll`
        self._services = services
        self._group = tasks
        self._tasks: set[asyncio.Task[object]] = set()
        # Ended sessions: the committed offset and the time (monotonic) from which each may be forgotten.
        self._ended: dict[str, tuple[int, float]] = {}
        self._last_record_ms: int | None = None
        self._last_poll_ms = 0

    async def restore(self, end: int) -> None:
        """Restore the sessions from the progress log; `end` is the partition's current end offset.

        The last owner may have died before it published its last decisions, so they are published again, unchanged.
        """
        for progress in list(self._services.progress.sessions(self.number).values()):
            if progress.final is not None:
                await self._services.publisher.send(progress.final, progress.reply_partition)
            if progress.end is not None:
                await self._services.publisher.send(progress.end, progress.reply_partition)
                self._remember(progress.session_id, end)
            else:
                segmentation = self._services.settings.segmentation(progress.options.endpointing_ms)
                self._start(Session.restored(progress, segmentation), progress)

    async def append_record(self, chunk: AudioChunk, record: ConsumerRecord) -> None:
        """Append a record to its session. A START opens one; a RESUME of an ended or unknown session is answered."""
        task = self.sessions.get(chunk.session_id)
        if task is None:
            last = self._services.progress.sessions(self.number).get(chunk.session_id)
            if chunk.kind is not AudioKind.START or last is not None:
                metrics.STALE_RECORDS.inc()
                if chunk.kind is AudioKind.RESUME:
                    answer = events.already_over(chunk, last, time.time_ns() // 1_000_000)
                    await self._services.publisher.send(answer, chunk.reply_partition)
                return
            segmentation = self._services.settings.segmentation(chunk.options.endpointing_ms)
            task = self._start(Session.started(chunk, segmentation), None)
        task.append_record(chunk, record)

    def note_read(self, record: ConsumerRecord) -> None:
        """Note that a record was read."""
        self.watermark.note_read(record.offset)
        self._last_record_ms = record.timestamp

    def note_poll(self, polled_ms: int, now_ms: int) -> None:
        """Note when Kafka last answered a poll of the partition (0: never). Call this about once a second.

        A session must not count as idle because Kafka was unavailable or the partition was paused. So the partition
        counts as followed only if both the time since that answer and the gap before it are short.
        """
        gap_ms = max(now_ms - polled_ms, polled_ms - self._last_poll_ms)
        self._last_poll_ms = polled_ms
        self.is_followed = gap_ms < CAUGHT_UP_S * 1000

    def lag(self, end_offset: int, now_s: float) -> Lag:
        """Return the lag behind the partition's `end_offset`; `now_s` is in seconds since the Unix epoch."""
        records = max(0, end_offset - self.watermark.next_offset)
        if not records:
            return Lag(0, 0.0)
        return Lag(records, None if self._last_record_ms is None else max(0.0, now_s - self._last_record_ms / 1000))

    def restart_idle_time(self, now_s: float) -> None:
        """Restart the idle time of every session, because the log may hold records of theirs that were not read yet."""
        for task in self.sessions.values():
            task.last_record_s = now_s

    async def end_idle_sessions(self, now_s: float) -> None:
        """Write an END for every session that has been idle for longer than the timeout."""
        for task in list(self.sessions.values()):
            await task.end_if_idle(now_s)

    async def write_tombstones(self, now_s: float) -> None:
        """Write a tombstone for each ended session that no replay can reach and whose client no longer comes back."""
        for session_id, (offset, due_s) in list(self._ended.items()):
            if (self.committed or 0) >= offset and now_s >= due_s:
                await self._services.progress.write_tombstone(self.number, session_id)
                del self._ended[session_id]

    @property
    def untranscribed_s(self) -> float:
        """The seconds of audio in memory that wait for voice activity or for a decision."""
        return sum(task.session.untranscribed_samples for task in self.sessions.values()) / SAMPLE_RATE

    @property
    def buffered_s(self) -> float:
        """The seconds of audio in memory."""
        return sum(task.session.buffered_samples for task in self.sessions.values()) / SAMPLE_RATE

    @property
    def is_busy(self) -> bool:
        """True while any session has unfinished steps."""
        return any(task.is_busy for task in self.sessions.values())

    async def stop(self) -> None:
        """Cancel every task. The partition's next owner decides what is still undecided."""
        for session_task in self.sessions.values():  # first, or voice activity could spawn further tasks
            self._services.vad.remove(session_task.session)
        self.sessions.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, session: Session, progress: Progress | None) -> SessionTask:
        task = SessionTask(
            session,
            progress,
            partition=self.number,
            watermark=self.watermark,
            services=self._services,
            spawn=self._spawn,
        )
        self.sessions[session.id] = task
        self._spawn(self._run(task))
        return task

    async def _run(self, task: SessionTask) -> None:
        try:
            end_offset = await task.run()
        except LostRaceError as error:
            self.lost_race = error
            return
        self._remember(task.session.id, end_offset + 1)
        self.watermark.forget(task.session.id)
        self.sessions.pop(task.session.id, None)

    def _remember(self, session_id: str, offset: int) -> None:
        self._ended[session_id] = offset, time.monotonic() + self._services.settings.remember_s

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
