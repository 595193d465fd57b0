"""A session's steps depend on its audio alone, and on what was decided before."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_contracts import AudioChunk, AudioKind, Progress, SegmentEnd, StreamOptions
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.context import Window, needed_from
from whisperline_transcriber.stream.hypothesis import Transcript, TranscriptWord
from whisperline_transcriber.stream.offline import Offline
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
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceState


def _chunk(kind: AudioKind = AudioKind.AUDIO, position: int = 0, data: bytes = b"", **more: Any) -> AudioChunk:
    fields: dict[str, Any] = {
        "session_id": "s",
        "connection_id": "c",
        "client_id": "u",
        "sequence": 0,
        "sample_rate": 16_000,
    }
    return AudioChunk(**{**fields, "reply_partition": 0, "kind": kind, "position": position, "data": data, **more})


def voice(frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
    """Take every loud frame for speech: like a voice-activity model, a deterministic function of the frame."""
    return [
        (0.9 if np.abs(frame.astype(np.int32)).mean() > 500 else 0.05, state)
        for frame, state in zip(frames, states, strict=True)
    ]


def say(_: Samples, window: Window) -> Transcript:
    """Say one word for each second; every other window ends a sentence."""
    length_ms = (window.end - window.segment_start) // 16
    first_ms = (window.segment_start - window.start) // 16
    times = [(first_ms + at, first_ms + min(at + 900, length_ms)) for at in range(0, length_ms, 1_000)]
    words = [TranscriptWord(word=" so", start_ms=start, end_ms=end, confidence=1) for start, end in times]
    text = " ".join(["so"] * len(words)) + "." * (window.end // FRAME_SAMPLES % 2)
    return Transcript(text=text, language="en", words=words, avg_logprob=0, model="m", version="1")


def opened(options: StreamOptions | None = None, *, rate: int = 16_000, eagerly: bool = False) -> Offline:
    """Return a session that has read its START at offset 0."""
    start = _chunk(AudioKind.START, options=options or StreamOptions(), sample_rate=rate)
    offline = Offline(Session.started(start, Segmentation()), voice, eagerly=eagerly)
    offline.session.append_record(start, 0)
    return offline


def steps_of(
    samples: Samples,
    sizes: Iterable[int],
    options: StreamOptions | None = None,
    *,
    rate: int = 16_000,
    eagerly: bool = False,
) -> list[Step]:
    """Return the steps of a session that gets `samples` in pieces of `sizes`, repeated, and then its end."""
    offline = opened(options, rate=rate, eagerly=eagerly)
    position, offset, pieces = 0, 1, list(sizes)
    while position < len(samples):
        piece = samples[position : position + pieces[offset % len(pieces)]]
        offline.session.append_record(_chunk(position=position, data=piece.tobytes(), sample_rate=rate), offset)
        position, offset = position + len(piece), offset + 1
        if offset % 3 == 0:
            offline.run(say)
    offline.session.append_record(_chunk(AudioKind.END, position=position, sample_rate=rate), offset)
    offline.run(say)
    return offline.steps


def tone(samples: int) -> Samples:
    """Return so many loud samples without an offset."""
    return np.tile(np.array([4_000, -4_000], np.int16), samples // 2)


def bursts(seed: int, seconds: float, rate: int = 16_000) -> Samples:
    """Return loud and quiet stretches of random lengths."""
    random = np.random.default_rng(seed)
    pieces: list[NDArray[np.float64]] = []
    while sum(len(piece) for piece in pieces) < seconds * rate:
        quiet = random.normal(0, 10, int(random.uniform(0.1, 2.5) * rate))
        loud = random.normal(0, 4_000, int(random.uniform(0.2, 4) * rate))
        pieces += [quiet, loud]
    return np.concatenate(pieces)[: int(seconds * rate)].clip(-32768, 32767).astype(np.int16)


def _segments(steps: Iterable[Step]) -> list[tuple[int, int]]:
    return [(step.segment.start, step.segment.end) for step in steps if isinstance(step, Transcribe)]


@given(st.integers(0, 20), st.lists(st.integers(1, 16_000), min_size=1, max_size=6))
@settings(max_examples=12, deadline=None)
def test_chunk_sizes_do_not_move_a_segment(seed: int, sizes: list[int]) -> None:
    """The same audio gives the same segments in chunks of any size."""
    samples = bursts(seed, 20)
    assert _segments(steps_of(samples, sizes)) == _segments(steps_of(samples, [1_600]))


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_chunk_sizes_do_not_move_a_segment_at_other_rates(rate: int) -> None:
    """Chunk sizes do not change the segments of resampled audio either."""
    samples = bursts(3, 20, rate)
    assert _segments(steps_of(samples, [rate // 100], rate=rate)) == _segments(steps_of(samples, [rate], rate=rate))


@given(st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_load_does_not_move_a_segment(seed: int) -> None:
    """Decoding every pause at once, as an idle machine does, gives the segments of a machine that decodes late."""
    samples = bursts(seed, 20)
    assert _segments(steps_of(samples, [1_600], eagerly=True)) == _segments(steps_of(samples, [1_600]))


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
@settings(max_examples=12, deadline=None)
def test_a_replay_from_any_decision_makes_the_same_decisions(seed: int, which: int) -> None:
    """A session restored from the progress after any decision makes the same decisions from there on."""
    samples = bursts(seed, 25)
    whole = _progress_of(samples)
    assert len(whole) > 1
    restored_from = whole[which % (len(whole) - 1)]
    session = Session.restored(restored_from, Segmentation())
    offline = Offline(session, voice, progress=restored_from)
    needed = needed_from(restored_from.memory, restored_from.base)
    first = needed // 1_600 * 1_600 - 1_600 if needed else 0
    for at in range(max(0, first), len(samples), 1_600):
        session.append_record(_audio(samples, at, 1_600), 100 + at)
        offline.run(say)
    session.append_record(_end(len(samples)), 10**9)
    offline.run(say)
    assert offline.progress == whole[-1]
    later = [each.final for each in whole if each.revision > restored_from.revision and each.final]
    assert offline.finals == later


def test_audio_sent_twice_is_heard_once() -> None:
    """Audio that a client sends again after it resumed changes nothing."""
    samples = bursts(5, 10)
    offline = opened()
    for at in [*range(0, 80_000, 1_600), *range(48_000, len(samples), 2_400)]:
        offline.session.append_record(_audio(samples, at, 1_600 if at < 48_000 else 2_400), 1 + at)
    offline.session.append_record(_end(len(samples)), 10**9)
    offline.run(say)
    assert _segments(offline.steps) == _segments(steps_of(samples, [1_600]))


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
    offline = opened()
    session = offline.session
    session.append_record(_chunk(AudioKind.RESUME, connection_id="new"), 5)
    assert not session.append_record(_chunk(AudioKind.END), 6)
    offline.run(say)
    assert not session.is_over
    assert session.append_record(_chunk(AudioKind.END, connection_id="new"), 7)
    offline.run(say)
    assert session.is_over


def test_what_follows_an_end_is_not_taken() -> None:
    """Records after an END are ignored, even if voice activity has not reached the END yet."""
    offline = opened()
    session = offline.session
    second = np.zeros(16_000, np.int16).tobytes()
    assert session.append_record(_chunk(data=second), 1)
    assert session.append_record(_end(16_000), 2)
    assert session.has_read_end
    assert not session.append_record(_chunk(AudioKind.RESUME, position=16_000, connection_id="new"), 3)
    assert not session.append_record(_chunk(position=16_000, data=second, connection_id="new"), 4)
    offline.run(say)
    assert [type(step) for step in offline.steps] == [AttachConnection, EndSession]
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
    assert session.next_frames(1)


@pytest.mark.parametrize("seed", range(3))
def test_a_backlog_needs_no_new_audio(seed: int) -> None:
    """Audio that was decided or heard is not a backlog; otherwise a paused partition would stay paused."""
    offline = opened()
    session = offline.session
    samples = bursts(seed, 20)
    for at in range(0, len(samples), 1_600):
        session.append_record(_audio(samples, at, 1_600), 1 + at)
    assert session.untranscribed_samples == len(samples) // 512 * 512
    offline.run(say)
    assert offline.finals
    assert session.untranscribed_samples == 0
    assert session.buffered_samples > 0


def test_undecided_audio_is_a_backlog() -> None:
    """A closed segment counts until it is decided."""
    session = Session.started(_chunk(AudioKind.START), Segmentation(closing_ms=500))
    samples = np.concatenate([tone(32_000), np.zeros(16_000, np.int16)])
    session.append_record(_chunk(data=samples.tobytes()), 1)
    hear_frames(session)
    assert session.steps.undecided_segments == 1
    assert session.untranscribed_samples >= 32_000


def test_frames_wait_for_the_answer_to_a_pause() -> None:
    """A pause is taken up to the shortest closing; further frames need the text of the speech before it."""
    offline = opened()
    session = offline.session
    samples = np.concatenate([tone(32_000), np.zeros(64_000, np.int16)])
    session.append_record(_chunk(data=samples.tobytes()), 1)
    heard = hear_frames(session)
    assert session.awaits_answer
    assert heard - 32_000 == pytest.approx(Segmentation().shortest_closing_ms * 16, abs=FRAME_SAMPLES)
    window = session.take_due_speculation(eagerly=False)
    assert window is not None
    assert session.take_due_speculation(eagerly=True) is None
    session.forget_speculation(window)
    assert session.take_due_speculation(eagerly=False) == window
    session.hear(window, say(samples, window))
    assert not session.awaits_answer


def test_a_speculation_that_failed_is_asked_for_again_when_it_is_needed() -> None:
    """While frames can be taken without it, a window that was not decoded is not requested again and again."""
    session = opened().session
    samples = np.concatenate([tone(32_000), np.zeros(4_000, np.int16)])
    session.append_record(_chunk(data=samples.tobytes()), 1)
    hear_frames(session)
    window = session.take_due_speculation(eagerly=True)
    assert window is not None
    session.forget_speculation(window)
    assert session.take_due_speculation(eagerly=True) is None
    session.append_record(_chunk(position=36_000, data=bytes(2 * 16_000)), 2)
    hear_frames(session)
    assert session.awaits_answer
    assert session.take_due_speculation(eagerly=True) == window


def test_speech_that_goes_on_makes_a_speculation_worthless() -> None:
    """What is heard of a pause that is over neither closes the segment nor answers the next pause."""
    session = opened().session
    loud, quiet = tone(16_000), np.zeros(4_000, np.int16)
    session.append_record(_chunk(data=np.concatenate([loud, quiet]).tobytes()), 1)
    hear_frames(session)
    first = session.take_due_speculation(eagerly=True)
    assert first is not None
    session.append_record(_chunk(position=20_000, data=np.concatenate([loud, quiet, quiet, quiet]).tobytes()), 2)
    hear_frames(session)
    assert session.awaits_answer
    session.hear(first, say(loud, first))
    assert session.awaits_answer
    second = session.take_due_speculation(eagerly=False)
    assert second is not None
    assert second.end > first.end


def test_a_late_partial_does_not_replace_the_text_of_a_pause() -> None:
    """Partials are less urgent, so one that was requested before the pause may be answered behind it."""
    session = opened(StreamOptions(interim_results=True)).session
    samples = np.concatenate([tone(32_000), np.zeros(4_000, np.int16)])
    session.append_record(_chunk(data=samples[:32_000].tobytes()), 1)
    hear_frames(session)
    partial = session.take_due_partial(lambda _: True)
    session.append_record(_chunk(position=32_000, data=samples[32_000:].tobytes()), 2)
    hear_frames(session)
    pause = session.take_due_speculation(eagerly=True)
    assert partial is not None
    assert pause is not None
    assert session.hear(pause, say(samples, pause)) is not None
    assert session.hear(partial, say(samples, partial)) is None


def test_a_segment_without_words_is_silence() -> None:
    """Noise that opened a segment moves the replay start, and makes no final."""

    def say_nothing(samples: Samples, window: Window) -> Transcript:
        return say(samples, window).model_copy(update={"text": "", "words": []})

    start = _chunk(AudioKind.START, options=StreamOptions(utterance_end_ms=1_000))
    offline = Offline(Session.started(start, Segmentation()), voice)
    offline.session.append_record(start, 0)
    samples = np.concatenate([tone(32_000), np.zeros(64_000, np.int16)])
    offline.session.append_record(_chunk(data=samples.tobytes()), 1)
    offline.run(say_nothing)
    assert [type(step) for step in offline.steps] == [AttachConnection, Transcribe]
    assert offline.finals == []
    assert offline.progress is not None
    assert (offline.progress.next_segment_index, offline.progress.base > 32_000) == (0, True)


def test_finalize_without_speech_is_answered() -> None:
    """A FINALIZE without an open segment is answered with its position."""
    offline = opened()
    offline.session.append_record(_chunk(data=np.zeros(16_000, np.int16).tobytes()), 1)
    offline.session.append_record(_chunk(AudioKind.FINALIZE, position=16_000), 2)
    offline.run(say)
    assert offline.steps[1:] == [AnswerFinalize(1_000)]


def test_a_finalize_in_a_pause_closes_what_was_decoded() -> None:
    """The segment has the samples of the pause's window, and the next one begins at the FINALIZE."""
    session = opened().session
    samples = np.concatenate([tone(16_000), np.zeros(4_000, np.int16)])
    session.append_record(_chunk(data=samples.tobytes()), 1)
    hear_frames(session)
    window = session.take_due_speculation(eagerly=True)
    assert window is not None
    session.append_record(_chunk(AudioKind.FINALIZE, position=20_000), 2)
    hear_frames(session)
    (closed,) = [step.segment for step in session.steps if isinstance(step, Transcribe)]
    assert (closed.start, closed.end, closed.replay_start) == (window.segment_start, window.end, 20_000)


def test_a_flood_of_finalize_is_one() -> None:
    """FINALIZEs that wait share one answer, and take no more memory than one."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    session.append_record(_chunk(AudioKind.START), 0)
    for offset in range(1, 100):
        session.append_record(_chunk(data=bytes(2), position=offset // 10), 1_000 + offset)
        session.append_record(_chunk(AudioKind.FINALIZE), offset)
        if offset % 7 == 0:
            session.next_frames(1)
    session.next_frames(1)
    assert [type(step) for step in session.steps] == [AttachConnection, AnswerFinalize]


def test_a_replay_does_not_answer_a_finalize_again(progress: Callable[..., Progress]) -> None:
    """A FINALIZE up to the replay start was answered before, so a replay does not answer it again."""
    session = Session.restored(progress(32_000), Segmentation())
    offline = Offline(session, voice, progress=progress(32_000))
    second = np.zeros(16_000, np.int16).tobytes()
    assert not session.append_record(_chunk(AudioKind.FINALIZE, position=16_000), 1)
    assert session.append_record(_chunk(position=16_000, data=second), 2)
    assert not session.append_record(_chunk(AudioKind.FINALIZE, position=32_000), 3)
    assert session.append_record(_chunk(position=32_000, data=second), 4)
    assert session.append_record(_chunk(AudioKind.FINALIZE, position=48_000), 5)
    offline.run(say)
    assert offline.steps == [AnswerFinalize(3_000)]


def test_a_partial_is_due_on_its_cadence_and_not_while_a_final_is_undecided() -> None:
    """Partials follow the audio of an open segment, and never run ahead of the final before it."""
    session = Session.started(_chunk(AudioKind.START), Segmentation())
    loud = np.random.default_rng(0).normal(0, 4_000, 32_000).astype(np.int16)
    session.append_record(_chunk(data=loud.tobytes()), 1)
    hear_frames(session)
    due = session.take_due_partial(lambda new: new >= 8_000)
    assert due is not None
    assert (due.start, due.end) == (0, 31_744)
    assert session.take_due_partial(lambda new: new >= 8_000) is None
    session.append_record(_chunk(AudioKind.FINALIZE), 2)
    session.append_record(_chunk(position=32_000, data=loud.tobytes()), 3)
    hear_frames(session)
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
    segment = SegmentClosed(0, 16_000, 12_000, SegmentEnd.SILENCE, 16_000)
    steps.append(Transcribe(segment))
    steps.append(MoveReplayStart(32_000))
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
    hear_frames(session)
    assert pushed == [900]


@pytest.mark.parametrize("endpointing_ms", [None, 25, 500, 2_000, 5_000])
def test_an_utterance_ends_once_after_its_last_word(endpointing_ms: int | None) -> None:
    """The UtteranceEnd comes once, after the silence that the client chose, and names the last word that was told."""
    options = StreamOptions(utterance_end_ms=1_000, endpointing_ms=endpointing_ms)
    start = _chunk(AudioKind.START, options=options)
    offline = Offline(
        Session.started(start, Segmentation(closing_ms=endpointing_ms)), voice, eagerly=endpointing_ms is not None
    )
    offline.session.append_record(start, 0)
    samples = np.concatenate([tone(24_000), np.zeros(8 * 16_000, np.int16)])
    came_at: list[int] = []
    for at in range(0, len(samples), 512):
        offline.session.append_record(_audio(samples, at, 512), 1 + at)
        offline.run(say)
        came_at += [at] * (isinstance(offline.steps[-1], SendUtteranceEnd) and not came_at)
    (end,) = [step for step in offline.steps if isinstance(step, SendUtteranceEnd)]
    assert end.last_word_end_ms == offline.finals[-1].words[-1].end_ms
    assert came_at[0] // 16 - end.last_word_end_ms == pytest.approx(1_000, abs=64)


@pytest.mark.parametrize("endpointing_ms", [None, 500])
@pytest.mark.parametrize("gap_ms", [300, 700])
@pytest.mark.parametrize("eagerly", [True, False])
def test_no_utterance_ends_before_the_words_at_a_pause_are_known(
    endpointing_ms: int | None, gap_ms: int, eagerly: bool
) -> None:
    """The last word that was told is not the last word of an utterance that went on behind it."""
    options = StreamOptions(utterance_end_ms=1_000, endpointing_ms=endpointing_ms)
    start = _chunk(AudioKind.START, options=options)
    offline = Offline(Session.started(start, Segmentation(closing_ms=endpointing_ms)), voice, eagerly=eagerly)
    offline.session.append_record(start, 0)
    gap, rest = np.zeros(gap_ms * 16, np.int16), np.zeros(8 * 16_000, np.int16)
    samples = np.concatenate([tone(24_064), gap, tone(32_000), rest])
    for at in range(0, len(samples), FRAME_SAMPLES):
        offline.session.append_record(_audio(samples, at, FRAME_SAMPLES), 1 + at)
        offline.run(say)
    ends = [step.last_word_end_ms for step in offline.steps if isinstance(step, SendUtteranceEnd)]
    assert ends == [offline.finals[-1].words[-1].end_ms]


def test_a_resumption_does_not_end_an_utterance_again() -> None:
    """The progress that names the new connection does not bring back a word whose UtteranceEnd was sent."""
    start = _chunk(AudioKind.START, options=StreamOptions(utterance_end_ms=1_000, endpointing_ms=500))
    offline = Offline(Session.started(start, Segmentation(closing_ms=500)), voice)
    offline.session.append_record(start, 0)
    samples = np.concatenate([tone(24_000), np.zeros(4 * 16_000, np.int16)])
    offline.session.append_record(_audio(samples, 0, 64_000), 1)
    offline.run(say)
    offline.session.append_record(_chunk(AudioKind.RESUME, connection_id="d"), 2)
    offline.session.append_record(_audio(samples, 64_000, 24_000), 3)
    offline.run(say)
    assert sum(isinstance(step, SendUtteranceEnd) for step in offline.steps) == 1


def test_a_refused_session_ends_once() -> None:
    """A FINALIZE or END that was read before the refusal has no effect."""
    session = opened().session
    session.append_record(_chunk(AudioKind.FINALIZE), 1)
    session.append_record(_end(0), 2)
    session.refuse(0, "no")
    assert session.next_frames(1) == []
    assert list(session.steps)[1:] == [EndSession(0, "refused", "no")]


def hear_frames(session: Session) -> int:
    """Push every frame that can be taken without an answer; return the end of the last one that was."""
    heard = 0
    while frames := session.next_frames(1):
        ((probability, state),) = voice(frames, [session.voice])
        session.push_vad(probability, state)
        heard += FRAME_SAMPLES
    return heard


def _progress_of(samples: Samples) -> list[Progress]:
    """Return every progress of a session that gets `samples` and then its end."""
    offline = opened()
    for at in range(0, len(samples), 1_600):
        offline.session.append_record(_audio(samples, at, 1_600), 1 + at)
        offline.run(say)
    offline.session.append_record(_end(len(samples)), 10**9)
    offline.run(say)
    return offline.decided


def _audio(samples: Samples, at: int, size: int) -> AudioChunk:
    return _chunk(position=at, data=samples[at : at + size].tobytes())


def _end(at: int) -> AudioChunk:
    return _chunk(AudioKind.END, position=at)
