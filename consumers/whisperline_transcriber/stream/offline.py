"""Transcribe a recording as a live session would, without a log: for tests and benchmarks.

Finals depend on the samples and on the finals before them, so these are the finals of a live session with any chunk
sizes and any load. The steps are those of `log.session_task`, taken at once.
"""

from collections.abc import Callable, Iterator

from whisperline_contracts import AudioChunk, AudioKind, Final, Progress, SessionEnd, StreamOptions

from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.audio import SAMPLE_RATE, Samples
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.session import (
    AttachConnection,
    EndSession,
    MoveReplayStart,
    Session,
    Step,
    Transcribe,
)
from whisperline_transcriber.stream.vad import VoiceState

VoiceModel = Callable[[list[Samples], list[VoiceState]], list[tuple[float, VoiceState]]]
Decode = Callable[[Samples, Window], Transcript]

CHUNK = SAMPLE_RATE // 10


class Offline:
    """Drives a session. `steps` are those that were taken, `decided` the progress after each that the log would decide.

    `voice` is the voice-activity model, `decode` the speech model. With `eagerly`, every pause is decoded, otherwise
    only those of which the session must know the text.
    """

    def __init__(
        self,
        session: Session,
        voice: VoiceModel,
        decode: Decode,
        *,
        progress: Progress | None = None,
        eagerly: bool = False,
    ) -> None:
        self.session, self.progress = session, progress
        self.steps: list[Step] = []
        self.decided: list[Progress] = []
        self._voice, self._decode, self._eagerly = voice, decode, eagerly
        self._last: tuple[Window, Transcript] | None = None

    @property
    def finals(self) -> list[Final]:
        """The finals so far."""
        return [progress.final for progress in self.decided if progress.final is not None]

    def pump(self) -> None:
        """Go on until the session needs more records."""
        session = self.session
        while True:
            while (step := session.steps.first) is not None:
                self._take(step)
                session.steps.finish_first()
                self.steps.append(step)
            window = session.take_due_speculation(eagerly=self._eagerly)
            if window is not None:
                session.hear(window, self._transcript(window))
                continue
            frame = session.next_frame()
            if frame is not None:
                ((probability, state),) = self._voice([frame.copy()], [session.voice])
                session.push_vad(frame, probability, state)
            elif not session.steps:
                return

    def _transcript(self, window: Window) -> Transcript:
        if self._last is None or self._last[0] != window:
            self._last = window, self._decode(self.session.read(window.start, window.end), window)
        return self._last[1]

    def _take(self, step: Step) -> None:
        session, progress = self.session, self.progress
        if isinstance(step, AttachConnection):
            decided = events.attach_progress(progress, step, session, "offline")
        elif progress is None:
            raise RuntimeError("the first step of a session is to attach its connection")
        elif isinstance(step, Transcribe):
            segment = step.segment
            window = session.window(segment.start, segment.end)
            transcript = self._transcript(window)
            decoded = events.Decoded(segment, window, transcript)
            decided = events.segment_progress(progress, decoded, session, "offline", 0)
        elif isinstance(step, MoveReplayStart):
            decided = events.silence_progress(progress, step.replay_start, session.last_word_end_ms, "offline")
        elif isinstance(step, EndSession):
            ids = events.ids_of(progress, 0)
            count, length_ms = progress.next_segment_index, session.duration_ms
            end = SessionEnd(**ids, segment_count=count, duration_ms=length_ms, reason="closed")
            decided = events.end_progress(progress, end, "offline")
        else:
            return
        self.progress = decided
        self.decided.append(decided)
        session.decided(decided)


def transcribe(
    samples: Samples,
    voice: VoiceModel,
    decode: Decode,
    options: StreamOptions,
    segmentation: Segmentation,
    *,
    sample_rate: int = SAMPLE_RATE,
) -> Iterator[Final]:
    """Yield the finals of a recording (mono)."""

    def chunk(kind: AudioKind, position: int, data: bytes = b"") -> AudioChunk:
        return AudioChunk(
            session_id="offline",
            connection_id="offline",
            client_id="offline",
            kind=kind,
            sequence=0,
            position=position,
            sample_rate=sample_rate,
            reply_partition=0,
            options=options,
            data=data,
        )

    start = chunk(AudioKind.START, 0)
    session = Session.started(start, segmentation)
    offline = Offline(session, voice, decode)
    session.append_record(start, 0)
    told = 0
    for position in range(0, len(samples), CHUNK):
        session.append_record(chunk(AudioKind.AUDIO, position, samples[position : position + CHUNK].tobytes()), 1)
        offline.pump()
        yield from offline.finals[told:]
        told = len(offline.finals)
    session.append_record(chunk(AudioKind.END, len(samples)), 2)
    offline.pump()
    yield from offline.finals[told:]
