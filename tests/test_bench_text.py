"""What `make bench-text` counts as a fault, and where a whole file's windows begin."""

import sys
from pathlib import Path

import pytest
from whisperline_contracts import Word

sys.path.append(str(Path(__file__).parents[1] / "bench"))  # scripts, not a package

from borders import Borders, is_punctuated, judge_borders, lost_at_onsets
from whisper_live import Transcript
from whole_text import last_pair

REFERENCE = "And so, my fellow Americans, ask not what your country can do for you. Ask what you can do."
BEGIN = 100  # of the timestamps in `last_pair`


def _word(text: str, start_ms: int) -> Word:
    return Word(word=text, start_ms=start_ms, end_ms=start_ms + 200, confidence=1)


def test_a_full_stop_in_mid_sentence_is_invented() -> None:
    """So is a capital. The end of a turn is counted for itself."""
    stop = judge_borders([("And so, my fellow Americans.", False), ("ask not what", True)], REFERENCE)
    capital = judge_borders([("And so, my fellow Americans", True), ("Ask not what", True)], REFERENCE)
    assert stop == Borders(in_sentence=1, invented=1, ended_turns=0)
    assert capital == Borders(in_sentence=1, invented=1, ended_turns=1)


def test_a_border_that_goes_on_hides_nothing() -> None:
    """It counts as one in mid-sentence all the same."""
    assert judge_borders([("so, my fellow", False), ("Americans, ask", True)], REFERENCE) == Borders(1, 0, 0)


def test_a_border_between_sentences_does_not_count() -> None:
    """Neither does one beside a word that was not recognised."""
    assert judge_borders([("can do for you.", True), ("Ask what you can do.", True)], REFERENCE) == Borders()
    assert judge_borders([("my fellow merry cans.", True), ("Ask not what", True)], REFERENCE) == Borders()


def test_words_are_lost_at_onsets_only() -> None:
    """A word that the whole file has wrong is not lost, nor one in the middle of speech."""
    whole = [_word("We", 0), _word("are", 200), _word("gathered", 400), _word("hear", 600), _word("Today", 1_500)]
    assert lost_at_onsets(whole, "gathered today", "we are gathered here today") == (4, 2)
    late = [_word("We", 0), *(_word("are", at) for at in range(300, 2_400, 300))]
    assert lost_at_onsets(late, "", " ".join(word.word for word in late)) == (4, 4)


def test_only_text_with_stops_and_both_cases_tells_where_sentences_end() -> None:
    """References of some sources have neither."""
    assert is_punctuated(REFERENCE)
    assert not is_punctuated("ask not what your country can do.")
    assert not is_punctuated("Ask not")


@pytest.mark.parametrize(
    ("tokens", "pair"),
    [
        ([100, 1, 150, 150, 2, 160], None),  # ends with a single timestamp: all of the window counts
        ([100, 1, 150, 150, 2, 160, 160], 6),  # another segment was announced
        ([100, 1, 150, 150, 2], 3),  # the last segment was not finished
        ([100, 1, 150, 150, 150, 2, 160], 3),  # the engine began anew within the window
    ],
)
def test_the_next_window_begins_at_the_last_pair_of_timestamps(tokens: list[int], pair: int | None) -> None:
    """As in openai-whisper."""
    assert last_pair(tokens, BEGIN) == pair


def test_a_complete_segment_of_the_peer_stays() -> None:
    """WhisperLive's messages have its latest segments, and one that may still change."""
    transcript = Transcript()
    first = {"start": "0.0", "end": "2.0", "text": " Ask not", "completed": True}
    transcript.update([first, {"start": "2.0", "end": "3.0", "text": " what", "completed": False}])
    assert transcript.shown(3.0).text == "Ask not what"
    transcript.update([{"start": "2.0", "end": "4.0", "text": " what your", "completed": False}])
    assert transcript.shown(4.0).text == "Ask not what your"
    assert transcript.shown(4.0).complete_text == "Ask not"
