"""Words are in order, within their segment, and none is empty."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Word
from whisperline_transcriber.stream.hypothesis import TranscriptWord
from whisperline_transcriber.stream.words import session_words

START_MS, END_MS = 1_000, 3_000
TIMES_MS = st.integers(-500, 3_500)
WORDS = st.lists(
    st.builds(TranscriptWord, word=st.just("so"), start_ms=TIMES_MS, end_ms=TIMES_MS, confidence=st.floats(-0.1, 1.1)),
    max_size=50,
)


def words_of(*times_ms: tuple[int, int]) -> list[TranscriptWord]:
    return [TranscriptWord(word="so", start_ms=start, end_ms=end, confidence=0.5) for start, end in times_ms]


def times_of(words: tuple[Word, ...]) -> list[tuple[int, int]]:
    return [(word.start_ms, word.end_ms) for word in words]


def test_times_count_from_the_start_of_the_session() -> None:
    """A window that begins before its segment has its own start."""
    words = session_words(words_of((600, 900), (900, 1_400)), audio_start_ms=500, start_ms=START_MS, end_ms=END_MS)
    assert times_of(words) == [(1_100, 1_400), (1_400, 1_900)]


def test_words_of_no_length_are_repaired() -> None:
    """A word that ends where it starts, behind the segment, or before the word in front of it lasts 20 ms."""
    repaired = session_words(
        words_of((0, 300), (300, 300), (300, 800), (700, 600), (2_400, 2_500)),
        audio_start_ms=START_MS,
        start_ms=START_MS,
        end_ms=END_MS,
    )
    assert times_of(repaired) == [
        (1_000, 1_300), (1_300, 1_320), (1_320, 1_700), (1_700, 1_720), (2_980, 3_000),
    ]  # fmt: skip


def test_a_confidence_lies_between_0_and_1() -> None:
    """Rounding errors beyond the range from 0 to 1, which the message would refuse, are clipped."""
    words = [TranscriptWord(word="so", start_ms=0, end_ms=100, confidence=value) for value in (1.0000001, -0.0000001)]
    clipped = session_words(words, audio_start_ms=0, start_ms=0, end_ms=END_MS)
    assert [word.confidence for word in clipped] == [1, 0]


@given(WORDS, st.integers(50, 2_000))
def test_any_words_become_words_in_order(words: list[TranscriptWord], length_ms: int) -> None:
    """Whatever times a model gives, the words have a length, are in order and within the segment."""
    end_ms = START_MS + length_ms
    repaired = session_words(words, audio_start_ms=START_MS, start_ms=START_MS, end_ms=end_ms)
    assert [word.word for word in repaired] == [word.word for word in words]
    assert all(START_MS <= word.start_ms < word.end_ms <= end_ms for word in repaired)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(repaired))


@given(st.lists(st.integers(0, 100), unique=True, max_size=20))
def test_right_words_stay(bounds: list[int]) -> None:
    """Words that are in order, within the segment and not too short keep their times."""
    pairs = [(20 * a, 20 * b) for a, b in pairwise(sorted(bounds))]
    words = session_words(words_of(*pairs), audio_start_ms=START_MS, start_ms=START_MS, end_ms=END_MS)
    assert times_of(words) == [(START_MS + start, START_MS + end) for start, end in pairs]
