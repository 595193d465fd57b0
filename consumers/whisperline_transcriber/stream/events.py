"""What is told of a session, from what is known of it, without I/O. `ids` are the fields that all events have."""

import math
import time
from typing import Any

from whisperline_contracts import AudioChunk, AudioKind, Final, Progress, SessionEnd, Word

from whisperline_transcriber.decoding.triton import Transcript
from whisperline_transcriber.stream.segmentation import Closed
from whisperline_transcriber.stream.session import IDLE_CLIENT, Session, milliseconds


def final(ids: dict[str, Any], index: int, segment: Closed, transcript: Transcript, position: int) -> Final:
    """Return the final of a segment; `position`, at the session's rate, is where it ends."""
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
        segment_index=index,
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
    """Return the END of a session that nobody feeds any more."""
    return AudioChunk(
        session_id=session.id,
        connection_id=session.connection_id,
        client_id=IDLE_CLIENT,
        kind=AudioKind.END,
        sequence=0,
        position=session.expected or 0,
        sample_rate=progress.sample_rate,
        reply_partition=progress.reply_partition,
        channels=progress.channels,
        options=progress.options,
    )


def already_over(chunk: AudioChunk, over: Progress | None) -> SessionEnd:
    """Answer a RESUME that came too late, for the connection that asked."""
    known = over.end if over is not None else None
    return SessionEnd(
        session_id=chunk.session_id,
        connection_id=chunk.connection_id,
        client_id=chunk.client_id,
        time_ms=now_ms(),
        segment_count=known.segment_count if known else 0,
        duration_ms=known.duration_ms if known else 0,
        reason=known.reason if known else "unknown",
    )


def now_ms() -> int:
    """Return the time, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
