"""Build events, and the progress records that decide them, from a session's state. No I/O."""

import math
from typing import TypedDict

from whisperline_contracts import AudioChunk, AudioKind, Final, Progress, Resumed, SessionEnd, SessionStart, Word

from whisperline_transcriber.stream.audio import milliseconds
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.segmentation import SegmentClosed
from whisperline_transcriber.stream.session import IDLE_CLIENT, AttachConnection, MoveReplayStart, Session


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


def final(ids: EventIds, segment_index: int, segment: SegmentClosed, transcript: Transcript, position: int) -> Final:
    """Return the final of a segment that ends at `position`, in samples at the session's rate."""
    start_ms, end_ms = milliseconds(segment.start), milliseconds(segment.end)
    words = tuple(
        Word(
            word=word.word,
            start_ms=min(start_ms + word.start_ms, end_ms),
            end_ms=min(start_ms + word.end_ms, end_ms),
            confidence=min(1.0, max(0.0, word.confidence)),
        )
        for word in transcript.words
    )
    mean = math.fsum(word.confidence for word in words) / len(words) if words else 0.0
    return Final(
        **ids,
        segment_index=segment_index,
        start_ms=start_ms,
        end_ms=end_ms,
        text=transcript.text.strip(),
        words=words,
        language=transcript.language,
        confidence=round(mean, 4),
        reason=segment.reason,
        model=transcript.model,
        model_version=transcript.version,
        position=position,
    )


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
        speech_end_ms=before.speech_end_ms if before else None,
    )


def final_progress(before: Progress, segment: SegmentClosed, decided: Final, owner: str) -> Progress:
    """Return the progress that decides the final of a segment."""
    return _next_progress(
        before,
        owner,
        replay_start=segment.end,
        next_segment_index=before.next_segment_index + 1,
        speech_end_ms=milliseconds(segment.speech_end),
        final=decided,
    )


def silence_progress(before: Progress, step: MoveReplayStart, owner: str) -> Progress:
    """Return the progress that decides that there was no speech before the next replay start."""
    return _next_progress(
        before,
        owner,
        replay_start=step.replay_start,
        next_segment_index=before.next_segment_index,
        speech_end_ms=step.speech_end_ms,
    )


def end_progress(before: Progress, end: SessionEnd, owner: str) -> Progress:
    """Return the progress that decides that the session is over."""
    return _next_progress(
        before,
        owner,
        replay_start=before.base,
        next_segment_index=before.next_segment_index,
        speech_end_ms=before.speech_end_ms,
        end=end,
    )


def _next_progress(
    before: Progress,
    owner: str,
    *,
    replay_start: int,
    next_segment_index: int,
    speech_end_ms: int | None,
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
        speech_end_ms=speech_end_ms,
        final=final,
        end=end,
    )
