"""Segments begin and end as a function of the samples."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import SegmentEnd
from whisperline_transcriber.stream.segmentation import (
    Segmentation,
    SegmentClosed,
    Segmenter,
    SegmentOpened,
    SilenceElapsed,
)
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

SETTINGS = Segmentation()
FRAMES_PER_S = 16_000 / FRAME_SAMPLES
Result = SegmentOpened | SegmentClosed | SilenceElapsed


def _run(probabilities: list[float], replay_start: int = 0) -> tuple[Segmenter, list[Result]]:
    events: list[Result] = []
    segmenter = Segmenter(replay_start, SETTINGS)
    for probability in probabilities:
        event = segmenter.push(probability, probability)
        if event is not None:
            events.append(event)
        if isinstance(event, SegmentClosed | SilenceElapsed):
            break
    return segmenter, events


def _frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_S)


def test_speech_between_silences_is_one_segment_with_pre_roll() -> None:
    """A segment begins 300 ms before the onset and closes 500 ms after the last speech."""
    _, (opened, closed) = _run([0.0] * _frames(2) + [0.9] * _frames(1) + [0.0] * _frames(2))
    onset, speech_end = _frames(2) * FRAME_SAMPLES, (_frames(2) + _frames(1)) * FRAME_SAMPLES
    assert opened == SegmentOpened(onset - 300 * 16)
    assert isinstance(closed, SegmentClosed)
    assert isinstance(opened, SegmentOpened)
    assert closed.start == opened.start
    assert closed.speech_end == speech_end
    assert closed.reason is SegmentEnd.SILENCE
    assert speech_end < closed.end <= speech_end + 16 * (500 - 200) + FRAME_SAMPLES


def test_a_click_is_not_speech() -> None:
    """Two loud frames do not open a segment."""
    _, events = _run([0.0] * 20 + [0.9] * 2 + [0.0] * 20)
    assert events == []


def test_a_short_pause_does_not_close() -> None:
    """Silence shorter than the end-of-speech silence stays within the segment."""
    segmenter, events = _run([0.9] * 30 + [0.0] * _frames(0.4) + [0.9] * 30)
    assert [type(event) for event in events] == [SegmentOpened]
    assert segmenter.is_speaking


def test_long_speech_is_cut_at_its_quietest_point() -> None:
    """At the longest length the cut falls on the quietest point of the last part."""
    probabilities = [0.95] * _frames(28.5)
    dip = _frames(21)
    probabilities[dip : dip + 5] = [0.5] * 5
    _, (_, closed) = _run(probabilities)
    assert isinstance(closed, SegmentClosed)
    assert closed.reason is SegmentEnd.MAX_LENGTH
    assert abs(closed.end - (dip * FRAME_SAMPLES + 5 * FRAME_SAMPLES // 2)) <= FRAME_SAMPLES


def test_without_speech_the_base_moves_on() -> None:
    """After ten seconds without speech, the replay start moves to one pre-roll before the end."""
    segmenter, (quiet,) = _run([0.1] * _frames(11))
    assert quiet == SilenceElapsed(segmenter.now - 300 * 16)


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
        segmenter, events = _run(probabilities[at:], replay_start)
        last = events[-1] if events else None
        if isinstance(last, SegmentClosed):
            segments.append(last)
            assert replay_start <= last.start < last.end <= segmenter.now
            assert last.end - last.start <= 28_000 * 16 + FRAME_SAMPLES
            replay_start = last.end
        elif isinstance(last, SilenceElapsed):
            assert last.replay_start > replay_start
            replay_start = last.replay_start
        else:
            break
        at = max(at + 1, replay_start // FRAME_SAMPLES)
    assert all(one.end <= other.start for one, other in itertools.pairwise(segments))


def test_of_equally_quiet_places_the_last_is_cut() -> None:
    """Long speech of constant loudness is cut at its end, so that the segment is as long as allowed."""
    segmenter, (_, closed) = _run([0.9] * _frames(28.5))
    assert isinstance(closed, SegmentClosed)
    assert segmenter.now - closed.end == 5 * FRAME_SAMPLES - 5 * FRAME_SAMPLES // 2
