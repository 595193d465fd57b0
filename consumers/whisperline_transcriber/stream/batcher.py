"""Run voice activity for all sessions of the process in a thread of its own, many sessions per call.

ONNX Runtime releases Python's lock while it computes, so the event loop reads and sends meanwhile. A call for one frame
costs almost as much as one for several, so calls are spaced out a little, and frames of other sessions can join.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from whisperline_transcriber import metrics
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.session import Session
from whisperline_transcriber.stream.vad import VoiceState

BATCH = 256  # most sessions in one call
AHEAD = 32  # most frames of a session, one second of audio, that are computed before its next state is known
SPACING_S = 0.01  # from the beginning of one batch to that of the next

Answer = tuple[float, VoiceState]
Model = Callable[[Sequence[Samples], Sequence[VoiceState]], list[Answer]]


class _Row(NamedTuple):
    session: Session
    on_frame: Callable[[], None]
    frames: list[Samples]  # one after the other, at least one
    state: VoiceState  # before the first frame


class VadBatcher:
    """The sessions that may have frames for the voice-activity model `model`.

    `model` is called in another thread, one call at a time. Everything else happens in the event loop: a session takes
    its answers in order, and one that was removed is not touched again, even if its frames are being computed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, "voice-activity")
        self._waiting: dict[str, tuple[Session, Callable[[], None]]] = {}
        self._has_work = asyncio.Event()

    @property
    def has_work(self) -> bool:
        """True while any session may have frames."""
        return bool(self._waiting)

    def add(self, session: Session, on_frame: Callable[[], None]) -> None:
        """Add a session that got records. `on_frame` is called after each of its frames, and when none are left."""
        self._waiting[session.id] = session, on_frame
        self._has_work.set()

    def remove(self, session: Session) -> None:
        """Forget a session."""
        self._waiting.pop(session.id, None)

    async def serve(self) -> None:
        """Run the frames of all sessions as they come, until cancelled."""
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                await self.run()
        finally:
            self._thread.shutdown(wait=False)

    async def run(self) -> None:
        """Run the available frames through the model; sessions without further frames are forgotten."""
        loop = asyncio.get_running_loop()
        while rows := self._take_rows():
            began_s = loop.time()
            for first in range(0, len(rows), BATCH):
                batch = rows[first : first + BATCH]
                for row, answers in zip(
                    batch, await loop.run_in_executor(self._thread, self._compute, batch), strict=True
                ):
                    self._push(row, answers)
            has_backlog = any(len(row.frames) == AHEAD for row in rows)
            await asyncio.sleep(0 if has_backlog else began_s + SPACING_S - loop.time())

    def _take_rows(self) -> list[_Row]:
        rows = []
        for session, on_frame in list(self._waiting.values()):
            frames = session.next_frames(AHEAD)
            if frames:
                rows.append(_Row(session, on_frame, frames, session.voice))
                continue
            del self._waiting[session.id]
            on_frame()  # a FINALIZE or END may have taken effect
        return rows

    def _compute(self, rows: Sequence[_Row]) -> list[list[Answer]]:
        """Return the model's answers to the frames of each row, in the thread."""
        answers: list[list[Answer]] = [[] for _ in rows]
        for number in range(max(len(row.frames) for row in rows)):
            going = [index for index, row in enumerate(rows) if number < len(row.frames)]
            frames = [rows[index].frames[number] for index in going]
            states = [answers[index][-1][1] if number else rows[index].state for index in going]
            for index, answer in zip(going, self._model(frames, states), strict=True):
                answers[index].append(answer)
            metrics.VAD_BATCH_SESSIONS.observe(len(going))
        return answers

    def _push(self, row: _Row, answers: Sequence[Answer]) -> None:
        """Give a session the answers to its frames, up to the first that changes what the next frame is."""
        session, state = row.session, row.state
        for probability, next_state in answers:
            waiting = self._waiting.get(session.id)
            if waiting is None or waiting[0] is not session:  # removed, or its id has been restored from the log
                return
            if session.voice is not state or not session.next_frames(1):  # it begins anew elsewhere, or has to wait
                return
            session.push_vad(probability, next_state)
            row.on_frame()
            state = next_state
