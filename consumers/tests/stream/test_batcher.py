"""Voice activity runs for many sessions in one call in a thread, and every session gets its own frames."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.batcher import AHEAD, BATCH, VadBatcher
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.session import AnswerFinalize, Session
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceState, fresh_state

LIMIT_S = 10


class Model:
    """A voice-activity model that finds only silence, records its batch sizes, and counts frames in its states."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_called = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
        assert len(frames) == len(states)
        self.is_called.set()
        self.may_answer.wait(LIMIT_S)
        self.sizes.append(len(frames))
        return [(0.0, VoiceState(state.recurrent + 1, state.context)) for state in states]


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
    assert sorted(model.sizes) == [1, 1, BATCH - 1, BATCH]
    assert calls == 2 * BATCH + 1 + BATCH + 1  # after each frame, and when a session has no more
    assert not batcher.has_work


async def test_a_session_gets_its_frames_in_order(chunk: Callable[..., AudioChunk]) -> None:
    """However many frames wait, each is computed once, after the one before it."""
    model, frames = Model(), 2 * AHEAD + 5
    session, seen = session_with(chunk, frames), []
    batcher = VadBatcher(model)
    batcher.add(session, lambda: seen.append(session.voice.recurrent[0, 0]))
    await batcher.run()
    assert seen == [*range(1, frames + 1), frames]
    assert model.sizes == [1] * frames


async def test_frames_behind_a_new_beginning_are_not_used(
    chunk: Callable[..., AudioChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model is reset, the answers that were computed ahead from the old state are thrown away."""
    session = session_with(chunk, AHEAD)
    pushed, push = [], session.push_vad

    def reset_after_three(probability: float, state: VoiceState) -> None:
        pushed.append(state.recurrent[0, 0])
        push(probability, state)
        if len(pushed) == 3:
            session.voice = fresh_state()

    monkeypatch.setattr(session, "push_vad", reset_after_three)
    batcher = VadBatcher(Model())
    batcher.add(session, lambda: None)
    await batcher.run()
    assert pushed == [*range(1, 4), *range(1, AHEAD - 2)]


async def test_a_control_takes_effect_where_it_was_sent(chunk: Callable[..., AudioChunk]) -> None:
    """Frames behind a FINALIZE are not computed before it has taken effect."""
    session = session_with(chunk, 3)
    session.append_record(chunk(AudioKind.FINALIZE), 2)
    session.append_record(chunk(position=3 * FRAME_SAMPLES, data=bytes(4 * FRAME_SAMPLES)), 3)
    steps: list[int] = []
    batcher = VadBatcher(Model())
    batcher.add(session, lambda: steps.append(len(session.steps)))
    await batcher.run()
    assert steps == [0, 0, 0, 1, 1, 1]


async def test_the_event_loop_goes_on_while_the_model_computes(chunk: Callable[..., AudioChunk]) -> None:
    """A session that is removed while its frame is computed is left alone, and another may come in its place."""
    model, removed, restored = Model(), session_with(chunk, 1), session_with(chunk, 2)
    calls: list[str] = []
    batcher = VadBatcher(model)
    model.may_answer.clear()
    batcher.add(removed, lambda: calls.append("removed"))
    serving = asyncio.create_task(batcher.serve())
    async with asyncio.timeout(LIMIT_S):
        await asyncio.to_thread(model.is_called.wait, LIMIT_S)
        batcher.remove(removed)
        batcher.add(restored, lambda: calls.append("restored"))
        model.may_answer.set()
        while batcher.has_work:  # noqa: ASYNC110 - what has no more frames is forgotten without an event
            await asyncio.sleep(0)
    assert calls == ["restored"] * 3
    assert removed.voice.recurrent[0, 0] == 0
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_failing_model_ends_the_service(chunk: Callable[..., AudioChunk]) -> None:
    """An error of the model reaches the process's tasks instead of stopping voice activity silently."""

    def fail(_: Sequence[Samples], __: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
        raise ValueError("broken")

    batcher = VadBatcher(fail)
    batcher.add(session_with(chunk, 1), lambda: None)
    with pytest.raises(ValueError, match="broken"):
        await batcher.serve()


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
    """A removed session is not touched again, because its partition has another owner."""
    model, session = Model(), session_with(chunk, 3)
    batcher = VadBatcher(model)
    batcher.add(session, lambda: None)
    batcher.remove(session)
    await batcher.run()
    assert model.sizes == []
