"""Events and progress records have the right fields."""

from collections.abc import Callable

import pytest
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Level,
    Memory,
    Progress,
    Resumed,
    Said,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    StreamOptions,
)
from whisperline_transcriber.stream import events
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript, TranscriptWord
from whisperline_transcriber.stream.segmentation import Segmentation, SegmentClosed
from whisperline_transcriber.stream.session import IDLE_CLIENT, AttachConnection, MoveReplayStart, Session

SEGMENT = SegmentClosed(start=16_000, end=48_000, speech_end=40_000, reason=SegmentEnd.SILENCE, replay_start=48_000)
WINDOW = Window(16_000, 16_000, 48_000)
LEVEL = Level(offset=3, speech_db=-20, noise_db=-70)
SAID = Memory(said=(Said(text="so it goes", start=16_000, end=48_000),))
IDS = events.EventIds(session_id="s", connection_id="c", client_id="u", time_ms=7)


def transcript(*words: TranscriptWord, text: str = " so it goes ") -> Transcript:
    return Transcript(text=text, language="en", words=list(words), avg_logprob=-0.1, model="whisper", version="3")


def word(start_ms: int, end_ms: int, confidence: float) -> TranscriptWord:
    return TranscriptWord(word="so", start_ms=start_ms, end_ms=end_ms, confidence=confidence)


def decide(before: Progress, said: Transcript, window: Window = WINDOW) -> Progress:
    """Return the progress after the segment, and its final, if it has one."""
    session = Session.restored(before, Segmentation())
    return events.segment_progress(before, events.Decoded(SEGMENT, window, said), session, "me", 7)


def test_a_final_has_the_times_of_the_session(progress: Callable[..., Progress]) -> None:
    """A final's word times count from the start of the session, and no word ends after its segment."""
    final = decide(progress(), transcript(word(0, 500, 0.5), word(1_900, 2_300, 1.0))).final
    assert final is not None
    assert (final.segment_index, final.start_ms, final.end_ms, final.position) == (0, 1_000, 3_000, 48_000)
    assert [(each.start_ms, each.end_ms) for each in final.words] == [(1_000, 1_500), (2_900, 3_000)]
    assert (final.text, final.confidence, final.model_version) == ("so it goes", 0.75, "3")
    assert (final.session_id, final.connection_id, final.client_id, final.time_ms) == ("s", "c", "u", 7)


def test_word_times_count_from_the_window(progress: Callable[..., Progress]) -> None:
    """A window that holds earlier audio does not move the words of its segment."""
    final = decide(progress(), transcript(word(1_000, 1_500, 1)), Window(8_000, 16_000, 48_000)).final
    assert final is not None
    assert [(each.start_ms, each.end_ms) for each in final.words] == [(1_500, 2_000)]


def test_a_confidence_lies_between_0_and_1(progress: Callable[..., Progress]) -> None:
    """Rounding errors beyond the range from 0 to 1, which the message would refuse, are clipped."""
    final = decide(progress(), transcript(word(0, 100, 1.0000001), word(100, 200, -0.0000001))).final
    assert final is not None
    assert [each.confidence for each in final.words] == [1, 0]


def test_a_segment_without_words_has_no_final(progress: Callable[..., Progress]) -> None:
    """Without words, the replay start moves on, and the session keeps its last word and its memory."""
    before = progress(16_000).model_copy(update={"last_word_end_ms": 900, "memory": SAID})
    after = decide(before, transcript(text=" "))
    assert after == before.model_copy(update={"base": 48_000, "revision": 2, "owner": "me"})


def test_a_connection_is_answered_by_the_kind_of_its_record(
    chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """A START is answered by SessionStart, and a RESUME by the end of the durable audio."""
    started = events.attached(IDS, AttachConnection(5, chunk(AudioKind.START), 0), progress())
    resumed = events.attached(IDS, AttachConnection(9, chunk(AudioKind.RESUME), 800), progress())
    assert isinstance(started, SessionStart)
    assert (started.sample_rate, started.channels, started.options) == (16_000, 1, StreamOptions())
    assert resumed == Resumed(**IDS, position=800, next_segment_index=0)


def test_the_first_progress_of_a_session_counts_from_1(chunk: Callable[..., AudioChunk]) -> None:
    """The first progress has revision 1, names the connection and decides nothing else."""
    start = chunk(AudioKind.START)
    session = Session.started(start, Segmentation())
    first = events.attach_progress(None, AttachConnection(5, start, 0), session, "me")
    assert (first.revision, first.owner, first.attached_at, first.base, first.next_segment_index) == (1, "me", 5, 0, 0)
    assert (first.connection_id, first.client_id, first.final, first.end) == ("c", "u", None, None)


def test_another_connection_changes_nothing_that_was_decided(
    chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """A RESUME keeps the replay start and the index of the next segment."""
    before = progress(32_000).model_copy(update={"next_segment_index": 3, "last_word_end_ms": 1_500, "memory": SAID})
    resume = chunk(AudioKind.RESUME, connection_id="new")
    session = Session.restored(before, Segmentation())
    after = events.attach_progress(before, AttachConnection(77, resume, 32_000), session, "me")
    changed = {"connection_id": "new", "attached_at": 77, "revision": 2, "owner": "me"}
    assert after == before.model_copy(update=changed)


def test_a_final_moves_the_replay_start_and_the_index(progress: Callable[..., Progress]) -> None:
    """The progress moves the replay start and the index, carries the whole final, and remembers what was said."""
    after = decide(progress(), transcript(word(0, 500, 1)))
    changed = {"base": 48_000, "next_segment_index": 1, "last_word_end_ms": 1_500, "memory": SAID}
    assert after == progress().model_copy(update=changed | {"revision": 2, "owner": "me", "final": after.final})


def test_silence_moves_the_replay_start_alone(progress: Callable[..., Progress]) -> None:
    """Silence moves the replay start and keeps what was said."""
    before = decide(progress(), transcript(word(0, 500, 1)))
    after = events.silence_progress(before, MoveReplayStart(160_000, LEVEL), None, "me")
    changed = {"base": 160_000, "last_word_end_ms": None, "final": None, "revision": 3, "level": LEVEL}
    assert after == before.model_copy(update=changed)


def test_the_end_of_a_session_is_in_its_last_progress(progress: Callable[..., Progress]) -> None:
    """The last progress carries the session's end and changes nothing else."""
    end = SessionEnd(**IDS, segment_count=0, duration_ms=10, reason="closed")
    after = events.end_progress(progress(16_000), end, "me")
    assert after == progress(16_000).model_copy(update={"end": end, "revision": 2, "owner": "me"})


@pytest.mark.parametrize("is_known", [True, False])
def test_a_resume_that_comes_too_late_is_told_so(
    chunk: Callable[..., AudioChunk], progress: Callable[..., Progress], is_known: bool
) -> None:
    """A late RESUME is answered with the reason for the session's end, as long as that is known."""
    end = SessionEnd(**IDS, segment_count=2, duration_ms=9_000, reason="idle")
    last = events.end_progress(progress(), end, "me") if is_known else None
    answer = events.already_over(chunk(AudioKind.RESUME, connection_id="late"), last, 8)
    expected = (2, 9_000, "idle") if is_known else (0, 0, "unknown")
    assert (answer.segment_count, answer.duration_ms, answer.reason) == expected
    assert (answer.connection_id, answer.time_ms) == ("late", 8)


def test_the_transcribers_own_end_names_itself(progress: Callable[..., Progress]) -> None:
    """The transcriber's own END has its client id, which marks the session as ended for being idle."""
    session = Session.restored(progress(), Segmentation())
    end = events.idle_end(session, progress())
    assert (end.kind, end.client_id, end.connection_id, end.position) == (AudioKind.END, IDLE_CLIENT, "c", 0)
