"""Segments begin and end as a function of the samples."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import SegmentEnd
from whisperline_transcriber.stream.segmentation import Segmentation, SegmentClosed, Segmenter, SilenceElapsed
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

SETTINGS = Segmentation()
FRAMES_PER_S = 16_000 / FRAME_SAMPLES
Result = SegmentClosed | SilenceElapsed


def _run(probabilities: list[float], replay_start: int = 0, answer_ms: int = 500) -> tuple[Segmenter, Result | None]:
    """Push frames until a segment has closed; every pause is answered when no frame can be pushed without."""
    segmenter = Segmenter(replay_start, SETTINGS)
    for probability in probabilities:
        result = segmenter.push(probability, probability)
        if result is None and segmenter.awaits_answer:
            result = segmenter.answer(answer_ms)
        if result is not None:
            return segmenter, result
    return segmenter, None


def _frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_S)


@pytest.mark.parametrize("answer_ms", [400, 500, 1_500])
def test_speech_between_silences_is_one_segment(answer_ms: int) -> None:
    """A segment begins a pre-roll before the onset, and ends a post-roll after the speech, whatever the answer."""
    segmenter, closed = _run([0.0] * _frames(2) + [0.9] * _frames(1) + [0.0] * _frames(2), answer_ms=answer_ms)
    onset, speech_end = _frames(2) * FRAME_SAMPLES, (_frames(2) + _frames(1)) * FRAME_SAMPLES
    end = speech_end + SETTINGS.post_roll_ms * 16
    assert closed == SegmentClosed(onset - SETTINGS.pre_roll_ms * 16, end, speech_end, SegmentEnd.SILENCE, end)
    assert 0 <= segmenter.now - speech_end - answer_ms * 16 < FRAME_SAMPLES


def test_a_soft_beginning_belongs_to_the_segment() -> None:
    """Frames before the onset that may be speech are in the segment, and the pre-roll is before them."""
    segmenter, _ = _run([0.0] * 40 + [0.15] * 12 + [0.9] * 4)
    assert segmenter.start == 40 * FRAME_SAMPLES - SETTINGS.pre_roll_ms * 16
    segmenter, _ = _run([0.2] * 80 + [0.9] * 4)
    assert segmenter.start == 80 * FRAME_SAMPLES - SETTINGS.longest_pre_roll_ms * 16


def test_a_click_is_not_speech() -> None:
    """Two loud frames do not open a segment."""
    segmenter, result = _run([0.0] * 20 + [0.9] * 2 + [0.0] * 20)
    assert (segmenter.start, result) == (None, None)


def test_a_short_pause_does_not_close() -> None:
    """Silence shorter than the answer stays within the segment, and the next pause is another question."""
    segmenter, result = _run([0.9] * 30 + [0.0] * _frames(0.35) + [0.9] * 30)
    assert result is None
    assert segmenter.is_speaking
    for _ in range(_frames(0.45)):
        segmenter.push(0.0, 0)
    assert segmenter.awaits_answer


def test_the_silence_that_the_client_chose_needs_no_answer() -> None:
    """With a fixed length of silence, a segment that closes within its post-roll ends there."""
    segmenter = Segmenter(0, Segmentation(closing_ms=25))
    for _ in range(30):
        assert segmenter.push(0.9, 0) is None
    closed = segmenter.push(0.0, 0)
    end = 31 * FRAME_SAMPLES
    assert closed == SegmentClosed(0, end, 30 * FRAME_SAMPLES, SegmentEnd.SILENCE, end)


def test_long_speech_is_cut_at_its_quietest_point() -> None:
    """At the longest length the cut falls on the quietest point of the last part."""
    probabilities = [0.95] * _frames(28.5)
    dip = _frames(21)
    probabilities[dip : dip + 5] = [0.5] * 5
    _, closed = _run(probabilities)
    assert isinstance(closed, SegmentClosed)
    assert closed.reason is SegmentEnd.MAX_LENGTH
    assert abs(closed.end - (dip * FRAME_SAMPLES + 5 * FRAME_SAMPLES // 2)) <= FRAME_SAMPLES


def test_without_speech_the_base_moves_on() -> None:
    """After ten seconds without speech, the replay start moves to the longest pre-roll before the end."""
    segmenter, quiet = _run([0.05] * _frames(11))
    assert quiet == SilenceElapsed(segmenter.now - SETTINGS.longest_pre_roll_ms * 16)


def test_finalize_closes_what_just_begins() -> None:
    """A FINALIZE within the first frames of speech closes a segment with all of them."""
    segmenter, _ = _run([0.0] * 20 + [0.9])
    closed = segmenter.close(segmenter.now + 100, SegmentEnd.FINALIZE)
    assert closed is not None
    assert closed.end == segmenter.now + 100
    assert Segmenter(0, SETTINGS).close(0, SegmentEnd.FINALIZE) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200)), min_size=1, max_size=40))
def test_segments_tile_without_overlap(stretches: list[tuple[float, int]]) -> None:
    """For any probabilities, segments follow each other without overlap, and none exceeds the longest length."""
    probabilities = [probability for probability, count in stretches for _ in range(count)]
    replay_start, at = 0, 0
    segments: list[SegmentClosed] = []
    while at < len(probabilities):
        segmenter, last = _run(probabilities[at:], replay_start)
        if isinstance(last, SegmentClosed):
            segments.append(last)
            assert replay_start <= last.start < last.end <= segmenter.now
            assert last.end - last.start <= 28_000 * 16 + FRAME_SAMPLES
            replay_start = last.replay_start
        elif isinstance(last, SilenceElapsed):
            assert last.replay_start > replay_start
            replay_start = last.replay_start
        else:
            break
        at = max(at + 1, replay_start // FRAME_SAMPLES)
    assert all(one.end <= other.start for one, other in itertools.pairwise(segments))


def test_of_equally_quiet_places_the_last_is_cut() -> None:
    """Long speech of constant loudness is cut at its end, so that the segment is as long as allowed."""
    segmenter, closed = _run([0.9] * _frames(28.5))
    assert isinstance(closed, SegmentClosed)
    assert segmenter.now - closed.end == 5 * FRAME_SAMPLES - 5 * FRAME_SAMPLES // 2
