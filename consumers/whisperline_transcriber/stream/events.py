"""Build events, and the progress records that decide them, from a session's state. No I/O."""

import math
from dataclasses import dataclass
from typing import TypedDict

from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Final,
    Level,
    Memory,
    Progress,
    Resumed,
    SessionEnd,
    SessionStart,
)

from whisperline_transcriber.stream.audio import milliseconds
from whisperline_transcriber.stream.context import Window, remember
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.language import gather
from whisperline_transcriber.stream.segmentation import SegmentClosed
from whisperline_transcriber.stream.session import IDLE_CLIENT, NO_LEVEL, AttachConnection, MoveReplayStart, Session
from whisperline_transcriber.stream.words import session_words


class EventIds(TypedDict):
    """The fields that every event has; unpack them into its constructor."""

    session_id: str
    connection_id: str
    client_id: str
    time_ms: int  # since the Unix epoch


def ids_of(progress: Progress, time_ms: int) -> EventIds:
    """Return the fields of an event for the connection that `progress` names."""
    return EventIds(
        session_id=progress.session_id,
        connection_id=progress.connection_id,
        client_id=progress.client_id,
        time_ms=time_ms,
    )


def attached(ids: EventIds, step: AttachConnection, progress: Progress) -> SessionStart | Resumed:
    """Return the answer to a START or RESUME."""
    if step.chunk.kind is AudioKind.RESUME:
        return Resumed(**ids, position=step.position, next_segment_index=progress.next_segment_index)
    return SessionStart(**ids, sample_rate=progress.sample_rate, channels=progress.channels, options=progress.options)


def idle_end(session: Session, progress: Progress) -> AudioChunk:
    """Return the END of a session whose client and gateway are gone."""
    return AudioChunk(
        session_id=session.id,
        connection_id=session.connection_id,
        client_id=IDLE_CLIENT,
        kind=AudioKind.END,
        sequence=0,
        position=session.next_position or 0,
        sample_rate=progress.sample_rate,
        reply_partition=progress.reply_partition,
        channels=progress.channels,
        options=progress.options,
    )


def already_over(chunk: AudioChunk, last: Progress | None, time_ms: int) -> SessionEnd:
    """Return the answer to a RESUME that came after the session's end, addressed to the connection that resumed.

    `last` is the session's last progress, or None if the session is unknown or was forgotten.
    """
    end = last.end if last is not None else None
    return SessionEnd(
        session_id=chunk.session_id,
        connection_id=chunk.connection_id,
        client_id=chunk.client_id,
        time_ms=time_ms,
        segment_count=end.segment_count if end else 0,
        duration_ms=end.duration_ms if end else 0,
        reason=end.reason if end else "unknown",
    )


def attach_progress(before: Progress | None, step: AttachConnection, session: Session, owner: str) -> Progress:
    """Return the progress that decides which connection a session belongs to; `owner` is this process."""
    return Progress(
        session_id=session.id,
        connection_id=step.chunk.connection_id,
        client_id=step.chunk.client_id,
        reply_partition=step.chunk.reply_partition,
        sample_rate=step.chunk.sample_rate,
        channels=step.chunk.channels,
        options=session.options,
        revision=before.revision + 1 if before else 1,
        owner=owner,
        attached_at=step.offset,
        base=before.base if before else 0,
        next_segment_index=before.next_segment_index if before else 0,
        last_word_end_ms=before.last_word_end_ms if before else None,
        memory=before.memory if before else Memory(),
        level=before.level if before else Level(),
    )


@dataclass(frozen=True)
class Decoded:
    """A closed segment, what was decoded for it, and its transcript."""

    segment: SegmentClosed
    window: Window
    transcript: Transcript
    level: Level = NO_LEVEL  # at the segment's replay start


def segment_progress(before: Progress, decoded: Decoded, session: Session, owner: str, time_ms: int) -> Progress:
    """Return the progress that decides a segment.

    It has a final if the transcript has words. Nobody is told of a segment without words: it counts as silence.
    """
    segment = decoded.segment
    if not decoded.transcript.text.strip():
        silence = MoveReplayStart(segment.replay_start, decoded.level)
        return silence_progress(before, silence, session.last_word_end_ms, owner)
    memory = remember(before.memory, decoded.transcript.text.strip(), segment.start, segment.end)
    languages = gather(before.memory.languages, decoded.transcript, segment.end - segment.start)
    final = _final(before, decoded, session.source_position(segment.replay_start), time_ms)
    return _next_progress(
        before,
        owner,
        replay_start=segment.replay_start,
        next_segment_index=before.next_segment_index + 1,
        last_word_end_ms=session.told_until(final.words[-1].end_ms if final.words else final.end_ms),
        memory=memory.model_copy(update={"languages": languages}),
        level=decoded.level,
        final=final,
    )


def _final(progress: Progress, decoded: Decoded, position: int, time_ms: int) -> Final:
    """Return the final of a segment; `position` is its replay start at the session's rate."""
    segment, transcript = decoded.segment, decoded.transcript
    start_ms, end_ms = milliseconds(segment.start), milliseconds(segment.end)
    audio_start_ms = milliseconds(decoded.window.start)
    words = session_words(transcript.words, audio_start_ms=audio_start_ms, start_ms=start_ms, end_ms=end_ms)
    mean = math.fsum(word.confidence for word in words) / len(words) if words else 0.0
    return Final(
        **ids_of(progress, time_ms),
        segment_index=progress.next_segment_index,
        start_ms=start_ms,
        end_ms=end_ms,
        text=transcript.text.strip(),
        words=words,
        language=transcript.language,
        confidence=round(mean, 4),
        reason=segment.reason,
        ends_turn=segment.ends_turn,
        model=transcript.model,
        model_version=transcript.version,
        position=position,
    )


def silence_progress(before: Progress, step: MoveReplayStart, last_word_end_ms: int | None, owner: str) -> Progress:
    """Return the progress that decides that there are no words before the next replay start."""
    return _next_progress(
        before,
        owner,
        replay_start=step.replay_start,
        next_segment_index=before.next_segment_index,
        last_word_end_ms=last_word_end_ms,
        memory=before.memory,
        level=step.level,
    )


def end_progress(before: Progress, end: SessionEnd, owner: str) -> Progress:
    """Return the progress that decides that the session is over."""
    return _next_progress(
        before,
        owner,
        replay_start=before.base,
        next_segment_index=before.next_segment_index,
        last_word_end_ms=before.last_word_end_ms,
        memory=before.memory,
        level=before.level,
        end=end,
    )


def _next_progress(
    before: Progress,
    owner: str,
    *,
    replay_start: int,
    next_segment_index: int,
    last_word_end_ms: int | None,
    memory: Memory,
    level: Level,
    final: Final | None = None,
    end: SessionEnd | None = None,
) -> Progress:
    return Progress(
        session_id=before.session_id,
        connection_id=before.connection_id,
        client_id=before.client_id,
        reply_partition=before.reply_partition,
        sample_rate=before.sample_rate,
        channels=before.channels,
        options=before.options,
        revision=before.revision + 1,
        owner=owner,
        attached_at=before.attached_at,
        base=replay_start,
        next_segment_index=next_segment_index,
        last_word_end_ms=last_word_end_ms,
        memory=memory,
        level=level,
        final=final,
        end=end,
    )
