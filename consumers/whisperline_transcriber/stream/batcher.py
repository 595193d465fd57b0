"""Run voice activity for all sessions of the process, one frame of each session per call."""

import asyncio
from collections.abc import Callable, Sequence

from whisperline_transcriber import metrics
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.session import Session
from whisperline_transcriber.stream.vad import VoiceState

BATCH = 256  # most sessions in one call
ROUNDS = 64  # frames of each session, 2 s of audio, before new records are read

Model = Callable[[Sequence[Samples], Sequence[VoiceState]], list[tuple[float, VoiceState]]]


class VadBatcher:
    """The sessions that may have frames for the voice-activity model `model`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._waiting: dict[str, tuple[Session, Callable[[], None]]] = {}

    @property
    def has_work(self) -> bool:
        """True while any session may have frames."""
        return bool(self._waiting)

    def add(self, session: Session, on_frame: Callable[[], None]) -> None:
        """Add a session that got records. `on_frame` is called after each of its frames, and when none are left."""
        self._waiting[session.id] = session, on_frame

    def remove(self, session: Session) -> None:
        """Forget a session."""
        self._waiting.pop(session.id, None)

    async def run(self) -> None:
        """Run the available frames through the model; sessions without further frames are removed.

        Returns after `ROUNDS` rounds even if frames are left, so that a backlog does not keep the log from being read.
        """
        for _ in range(ROUNDS):
            rows: list[tuple[Session, Callable[[], None], Samples]] = []
            for session, on_frame in list(self._waiting.values()):
                frame = session.next_frame()
                if frame is None:
                    del self._waiting[session.id]
                    on_frame()  # a FINALIZE or END may have taken effect
                else:
                    rows.append((session, on_frame, frame))
            if not rows:
                return
            for first in range(0, len(rows), BATCH):
                batch = rows[first : first + BATCH]
                answers = self._model([frame for _, _, frame in batch], [session.voice for session, _, _ in batch])
                metrics.VAD_BATCH_SESSIONS.observe(len(batch))
                for (session, on_frame, frame), (probability, state) in zip(batch, answers, strict=True):
                    session.push_vad(frame, probability, state)
                    on_frame()
            await asyncio.sleep(0)  # lets decisions and partials proceed
