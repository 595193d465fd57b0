"""Voice activity runs for many sessions in one call, and every session gets its own frames."""

from collections.abc import Callable, Sequence

import numpy as np
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.batcher import BATCH, ROUNDS, VadBatcher
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.session import AnswerFinalize, Session
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceState


class Model:
    """A voice-activity model that finds only silence and records its batch sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
        assert len(frames) == len(states)
        self.sizes.append(len(frames))
        return [(0.0, state) for state in states]


def session_with(chunk: Callable[..., AudioChunk], frames: int, session_id: str = "s") -> Session:
    session = Session.started(chunk(AudioKind.START, session_id=session_id), Segmentation())
    session.append_record(chunk(data=np.zeros(frames * FRAME_SAMPLES, np.int16).tobytes()), 1)
    return session


async def test_sessions_share_a_call(chunk: Callable[..., AudioChunk]) -> None:
    """Each call has at most one frame of each session, and no call exceeds the limit."""
    model, calls = Model(), 0

    def on_frame() -> None:
        nonlocal calls
        calls += 1

    batcher = VadBatcher(model)
    for number in range(BATCH + 1):
        batcher.add(session_with(chunk, 2 if number else 1, str(number)), on_frame)
    await batcher.run()
    assert model.sizes == [BATCH, 1, BATCH]
    assert calls == 2 * BATCH + 1 + BATCH + 1  # after each frame, and when a session has no more
    assert not batcher.has_work


async def test_a_backlog_does_not_keep_the_log_from_being_read(chunk: Callable[..., AudioChunk]) -> None:
    """A run ends after its rounds even with a backlog, and the next run continues."""
    model = Model()
    batcher = VadBatcher(model)
    batcher.add(session_with(chunk, ROUNDS + 5), lambda: None)
    await batcher.run()
    assert (len(model.sizes), batcher.has_work) == (ROUNDS, True)
    await batcher.run()
    assert (len(model.sizes), batcher.has_work) == (ROUNDS + 5, False)


async def test_a_control_without_audio_takes_effect(chunk: Callable[..., AudioChunk]) -> None:
    """A FINALIZE after the last whole frame takes effect although no frame follows."""
    session = session_with(chunk, 0)
    session.append_record(chunk(data=bytes(20)), 2)
    session.append_record(chunk(AudioKind.FINALIZE), 3)
    steps: list[int] = []
    batcher = VadBatcher(Model())
    batcher.add(session, lambda: steps.append(len(session.steps)))
    await batcher.run()
    assert steps == [1]
    assert session.steps.first == AnswerFinalize(0)


async def test_a_session_that_was_removed_is_left_alone(chunk: Callable[..., AudioChunk]) -> None:
    """A removed session is not touched any more, because its partition has another owner."""
    model, session = Model(), session_with(chunk, 3)
    batcher = VadBatcher(model)
    batcher.add(session, lambda: None)
    batcher.remove(session)
    await batcher.run()
    assert model.sizes == []
