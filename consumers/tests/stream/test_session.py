"""A session's steps depend on its audio alone."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_contracts import AudioChunk, AudioKind, Progress, SegmentEnd, StreamOptions
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.segmentation import Segmentation, SegmentClosed, Segmenter
from whisperline_transcriber.stream.session import (
    AnswerFinalize,
    AttachConnection,
    EndSession,
    MoveReplayStart,
    SendUtteranceEnd,
    Session,
    Step,
    StepQueue,
    Transcribe,
)
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, fresh_state


def _chunk(kind: AudioKind = AudioKind.AUDIO, position: int = 0, data: bytes = b"", **more: Any) -> AudioChunk:
    fields: dict[str, Any] = {
        "session_id": "s",
        "connection_id": "c",
        "client_id": "u",
        "sequence": 0,
        "sample_rate": 16_000,
    }
    return AudioChunk(**{**fields, "reply_partition": 0, "kind": kind, "position": position, "data": data, **more})


def loudness_probability(frame: Samples) -> float:
    """Take every loud frame for speech: like a voice-activity model, a deterministic function of the frame."""
    return 0.9 if np.abs(frame.astype(np.int32)).mean() > 500 else 0.05


def pump(session: Session) -> None:
    """Push every available frame."""
    while (frame := session.next_frame()) is not None:
        session.push_vad(frame.copy(), loudness_probability(frame), fresh_state())


def steps_of(
    samples: Samples, sizes: Iterable[int], options: StreamOptions | None = None, rate: int = 16_000
) -> list[Step]:
    """Return the steps of a session that gets `samples` in pieces of `sizes`, repeated, and then its end."""
    options = options or StreamOptions()
    session = Session.started(_chunk(AudioKind.START, options=options, sample_rate=rate), Segmentation())
    session.append_record(_chunk(AudioKind.START, options=options, sample_rate=rate), 0)
    position, offset, pieces = 0, 1, list(sizes)
    while position < len(samples):
        piece = samples[position : position + pieces[offset % len(pieces)]]
        session.append_record(
            _chunk(position=position, data=piece.tobytes(), options=options, sample_rate=rate), offset
        )
        position, offset = position + len(piece), offset + 1
        if offset % 3 == 0:
            pump(session)
    session.append_record(_chunk(AudioKind.END, position=position, options=options, sample_rate=rate), offset)
    pump(session)
    return list(session.steps)


def bursts(seed: int, seconds: float, rate: int = 16_000) -> Samples:
    """Return loud and quiet stretches of random lengths."""
    random = np.random.default_rng(seed)
    pieces: list[NDArray[np.float64]] = []
    while sum(len(piece) for piece in pieces) < seconds * rate:
        quiet = random.normal(0, 10, int(random.uniform(0.1, 1.5) * rate))
        loud = random.normal(0, 4_000, int(random.uniform(0.2, 6) * rate))
        pieces += [quiet, loud]
    return np.concatenate(pieces)[: int(seconds * rate)].clip(-32768, 32767).astype(np.int16)


def _segments(steps: Iterable[Step]) -> list[tuple[int, int]]:
    return [(step.segment.start, step.segment.end) for step in steps if isinstance(step, Transcribe)]


@given(st.integers(0, 20), st.lists(st.integers(1, 16_000), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_chunk_sizes_do_not_move_a_segment(seed: int, sizes: list[int]) -> None:
    """The same audio gives the same segments in chunks of any size."""
    samples = bursts(seed, 20)
    assert _segments(steps_of(samples, sizes)) == _segments(steps_of(samples, [1_600]))


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_chunk_sizes_do_not_move_a_segment_at_other_rates(rate: int) -> None:
    """Chunk sizes do not change the segments of resampled audio either."""
    samples = bursts(3, 20, rate)
    assert _segments(steps_of(samples, [rate // 100], rate=rate)) == _segments(steps_of(samples, [rate], rate=rate))


def test_steps_begin_with_the_attachment_and_end_with_the_finish() -> None:
    """A session is attached first and finished last, with its speech in between."""
    steps = steps_of(bursts(1, 10), [3_200])
    assert isinstance(steps[0], AttachConnection)
    assert isinstance(steps[-1], EndSession)
    assert _segments(steps)
    last = steps[-2]
    assert isinstance(last, Transcribe)
    assert last.segment.reason is SegmentEnd.END


@given(seed=st.integers(0, 30), which=st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_a_replay_from_any_decision_makes_the_same_decisions(
    progress: Callable[..., Progress], seed: int, which: int
) -> None:
    """A session restored from the progress after any decision makes the same decisions from there on."""
    samples = bursts(seed, 25)
    steps = [step for step in steps_of(samples, [1_600]) if isinstance(step, Transcribe | MoveReplayStart)]
    decided = steps[: which % (len(steps) + 1)]
    replay_start = 0
    if decided:
        last = decided[-1]
        replay_start = last.replay_start if isinstance(last, MoveReplayStart) else last.segment.end
    session = Session.restored(progress(replay_start), Segmentation())
    first = replay_start // 1_600 * 1_600 - 1_600 if replay_start else 0
    for at in range(max(0, first), len(samples), 1_600):
        session.append_record(_audio(samples, at, 1_600), 100 + at)
        pump(session)
    session.append_record(_end(len(samples)), 10**9)
    pump(session)
    again = [step for step in session.steps if isinstance(step, Transcribe | MoveReplayStart)]
    assert _segments(again) == _segments(steps[len(decided) :])


def test_audio_sent_twice_is_heard_once() -> None:
    """Audio that a client sends again after it resumed changes nothing."""
    samples = bursts(5, 10)
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    for at in [*range(0, 80_000, 1_600), *range(48_000, len(samples), 2_400)]:
        session.append_record(_audio(samples, at, 1_600 if at < 48_000 else 2_400), at)
    session.append_record(_end(len(samples)), 10**9)
    pump(session)
    assert _segments(list(session.steps)) == _segments(steps_of(samples, [1_600]))


def test_audio_beyond_a_gap_is_not_taken() -> None:
    """A chunk after a gap is ignored: it was never acknowledged, so the client sends it again."""
    samples = bursts(6, 5)
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    assert session.append_record(_audio(samples, 0, 1_600), 1)
    assert not session.append_record(_audio(samples, 3_200, 1_600), 2)
    assert session.append_record(_audio(samples, 1_600, 1_600), 3)
    assert session.append_record(_audio(samples, 3_200, 1_600), 4)
    assert session.next_position == 4_800


def test_an_end_of_a_replaced_connection_is_not_obeyed() -> None:
    """Only the connection that was attached last can end the session."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    session.append_record(_chunk(AudioKind.RESUME, connection_id="new"), 5)
    assert not session.append_record(_chunk(AudioKind.END), 6)
    pump(session)
    assert not session.is_over
    assert session.append_record(_chunk(AudioKind.END, connection_id="new"), 7)
    pump(session)
    assert session.is_over


def test_what_follows_an_end_is_not_taken() -> None:
    """Records after an END are ignored, even if voice activity has not reached the END yet."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    second = np.zeros(16_000, np.int16).tobytes()
    assert session.append_record(_chunk(data=second), 1)
    assert session.append_record(_end(16_000), 2)
    assert session.has_read_end
    assert not session.append_record(_chunk(AudioKind.RESUME, position=16_000, connection_id="new"), 3)
    assert not session.append_record(_chunk(position=16_000, data=second, connection_id="new"), 4)
    pump(session)
    assert [type(step) for step in session.steps] == [EndSession]
    assert session.duration_ms == 1_000


def test_a_replay_keeps_nothing_that_is_done(progress: Callable[..., Progress]) -> None:
    """A restored session buffers no audio before its replay start, however far back other sessions replay the log."""
    replay_start, second = 600 * 16_000, np.zeros(16_000, np.int16).tobytes()
    session = Session.restored(progress(replay_start), Segmentation())
    for at in range(0, replay_start, 16_000):
        needed = session.append_record(_chunk(position=at, data=second), at)
        assert needed == (at + 16_000 == replay_start)
        assert session.buffered_samples == 0
    session.append_record(_chunk(position=replay_start, data=second), replay_start)
    assert session.next_frame() is not None


@pytest.mark.parametrize("seed", range(3))
def test_a_backlog_needs_no_new_audio(seed: int) -> None:
    """Audio that voice activity has processed is not a backlog; otherwise a paused partition would stay paused."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    samples = bursts(seed, 20)
    for at in range(0, len(samples), 1_600):
        session.append_record(_audio(samples, at, 1_600), at)
    assert session.untranscribed_samples == len(samples) // 512 * 512
    pump(session)
    for step in session.steps:
        if isinstance(step, Transcribe):
            assert session.untranscribed_samples > 0
            session.drop_before(step.segment.end)
    assert session.untranscribed_samples == 0
    assert session.buffered_samples > 0


def test_finalize_without_speech_is_answered() -> None:
    """A FINALIZE without an open segment is answered with its position."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    session.append_record(_chunk(data=np.zeros(16_000, np.int16).tobytes()), 1)
    session.append_record(_chunk(AudioKind.FINALIZE, position=16_000), 2)
    pump(session)
    assert list(session.steps) == [AnswerFinalize(1_000)]


def test_a_flood_of_finalize_is_one() -> None:
    """FINALIZEs that wait share one answer, and take no more memory than one."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    session.append_record(_chunk(AudioKind.START), 0)
    for offset in range(1, 100):
        session.append_record(_chunk(data=bytes(2), position=offset // 10), 1_000 + offset)
        session.append_record(_chunk(AudioKind.FINALIZE), offset)
        if offset % 7 == 0:
            session.next_frame()
    session.next_frame()
    assert [type(step) for step in session.steps] == [AttachConnection, AnswerFinalize]


def test_a_replay_does_not_answer_a_finalize_again(progress: Callable[..., Progress]) -> None:
    """A FINALIZE up to the replay start was answered before, so a replay does not answer it again."""
    session = Session.restored(progress(32_000), Segmentation())
    second = np.zeros(16_000, np.int16).tobytes()
    assert not session.append_record(_chunk(AudioKind.FINALIZE, position=16_000), 1)
    assert session.append_record(_chunk(position=16_000, data=second), 2)
    assert not session.append_record(_chunk(AudioKind.FINALIZE, position=32_000), 3)
    assert session.append_record(_chunk(position=32_000, data=second), 4)
    assert session.append_record(_chunk(AudioKind.FINALIZE, position=48_000), 5)
    pump(session)
    assert list(session.steps) == [AnswerFinalize(3_000)]


def test_a_partial_is_due_on_its_cadence_and_not_while_a_final_is_undecided() -> None:
    """Partials follow the audio of an open segment, and never run ahead of the final before it."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    loud = np.random.default_rng(0).normal(0, 4_000, 32_000).astype(np.int16)
    session.append_record(_chunk(data=loud.tobytes()), 1)
    pump(session)
    assert session.take_due_partial(lambda new: new >= 8_000) == (0, 31_744)
    assert session.take_due_partial(lambda new: new >= 8_000) is None
    session.append_record(_chunk(AudioKind.FINALIZE), 2)
    session.append_record(_chunk(position=32_000, data=loud.tobytes()), 3)
    pump(session)
    assert session.take_due_partial(lambda new: new >= 8_000) is None


def test_the_first_step_is_in_progress_and_stays() -> None:
    """A FINALIZE gets an answer of its own while another is being answered, and replaces one that still waits."""
    steps = StepQueue()
    for at_ms in (1, 2, 3):
        steps.append(AnswerFinalize(at_ms))
    assert steps.first == AnswerFinalize(1)
    assert list(steps) == [AnswerFinalize(1), AnswerFinalize(3)]
    steps.finish_first()
    steps.append(AnswerFinalize(4))
    assert list(steps) == [AnswerFinalize(3), AnswerFinalize(4)]


def test_a_segment_is_undecided_until_its_step_is_finished() -> None:
    """A segment counts as undecided until its step is finished, because its final may fail before that."""
    steps = StepQueue()
    segment = SegmentClosed(0, 16_000, 12_000, SegmentEnd.SILENCE)
    steps.append(Transcribe(segment))
    steps.append(MoveReplayStart(32_000, None))
    assert steps.first == Transcribe(segment)
    assert (steps.undecided_segments, len(steps)) == (1, 2)
    steps.finish_first()
    assert (steps.undecided_segments, len(steps)) == (0, 1)


def test_the_segmenter_gets_the_mean_square_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loudness of a frame does not depend on its length."""
    pushed: list[float] = []

    def push(_: Segmenter, __: float, mean_square: float) -> None:
        pushed.append(mean_square)

    monkeypatch.setattr(Segmenter, "push", push)
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    session.append_record(_chunk(data=np.full(FRAME_SAMPLES, 30, np.int16).tobytes()), 1)
    pump(session)
    assert pushed == [900]


def test_an_utterance_ends_once_after_the_silence_that_the_client_asked_for() -> None:
    """The utterance end is sent once after the silence that the client chose, not again while the silence lasts."""
    options = StreamOptions(utterance_end_ms=1_000)
    samples = np.concatenate([bursts(1, 3), np.zeros(5 * 16_000, np.int16)])
    ends = [step for step in steps_of(samples, [1_600], options) if isinstance(step, SendUtteranceEnd)]
    assert len(ends) == 1


def _audio(samples: Samples, at: int, size: int) -> AudioChunk:
    return _chunk(position=at, data=samples[at : at + size].tobytes())


def _end(at: int) -> AudioChunk:
    return _chunk(AudioKind.END, position=at)
