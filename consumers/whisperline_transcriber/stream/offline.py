"""Drive a session without a log, for tests and benchmarks.

Finals depend on the samples and on the finals before them, so these are the finals of a live session with any chunk
sizes and any load. The steps are those of `log.session_task`, taken at once.
"""

from collections.abc import Callable, Generator, Sequence

from whisperline_contracts import Final, Progress, SessionEnd

from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.session import (
    AttachConnection,
    EndSession,
    MoveReplayStart,
    Session,
    Step,
    Transcribe,
)
from whisperline_transcriber.stream.vad import VoiceState

VoiceModel = Callable[[Sequence[Samples], Sequence[VoiceState]], list[tuple[float, VoiceState]]]


class Offline:
    """Drives a session. `steps` are those that were taken, `decided` the progress after each that the log would decide.

    `voice` is the voice-activity model. With `eagerly`, every pause is decoded, otherwise only those of which the
    session must know the text.
    """

    def __init__(
        self, session: Session, voice: VoiceModel, *, progress: Progress | None = None, eagerly: bool = False
    ) -> None:
        self.session, self.progress = session, progress
        self.steps: list[Step] = []
        self.decided: list[Progress] = []
        self._voice, self._eagerly = voice, eagerly
        self._last: tuple[Window, Transcript] | None = None

    @property
    def finals(self) -> list[Final]:
        """The finals so far."""
        return [progress.final for progress in self.decided if progress.final is not None]

    def run(self, decode: Callable[[Samples, Window], Transcript]) -> None:
        """Go on until the session needs more records; `decode` is the speech model."""
        windows = self.go_on()
        try:
            window = next(windows)
            while True:
                window = windows.send(decode(self.session.read(window), window))
        except StopIteration:
            return

    def go_on(self) -> Generator[Window, Transcript, None]:
        """Go on until the session needs more records. Yields each window to decode, and takes its transcript."""
        session = self.session
        while True:
            while (step := session.steps.first) is not None:
                if isinstance(step, Transcribe):
                    window = session.window(step.segment.start, step.segment.end)
                    if self._last is None or self._last[0] != window:
                        self._last = window, (yield window)
                    self._take(step, events.Decoded(step.segment, *self._last, step.level))
                else:
                    self._take(step)
                session.steps.finish_first()
                self.steps.append(step)
            due = session.take_due_speculation(eagerly=self._eagerly)
            if due is not None:
                self._last = due, (yield due)
                session.hear(*self._last)
                continue
            frames = session.next_frames(1)
            if frames:
                ((probability, state),) = self._voice(frames, [session.voice])
                session.push_vad(probability, state)
            elif not session.steps:
                return

    def _take(self, step: Step, decoded: events.Decoded | None = None) -> None:
        session, progress = self.session, self.progress
        if isinstance(step, AttachConnection):
            decided = events.attach_progress(progress, step, session, "offline")
        elif progress is None:
            raise RuntimeError("the first step of a session is to attach its connection")
        elif decoded is not None:
            decided = events.segment_progress(progress, decoded, session, "offline", 0)
        elif isinstance(step, MoveReplayStart):
            decided = events.silence_progress(progress, step, session.last_word_end_ms, "offline")
        elif isinstance(step, EndSession):
            ids = events.ids_of(progress, 0)
            count, length_ms = progress.next_segment_index, session.duration_ms
            end = SessionEnd(**ids, segment_count=count, duration_ms=length_ms, reason=step.reason)
            decided = events.end_progress(progress, end, "offline")
        else:
            return
        self.progress = decided
        self.decided.append(decided)
        session.decided(decided)
