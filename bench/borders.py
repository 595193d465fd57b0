"""Find faults where one final ends and the next begins, and words that are missing at onsets. No I/O.

Texts are compared word by word, without case and punctuation, by the longest matching blocks (`difflib`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from whisperline_contracts import Word

STOPS = ".?!"
ONSET_MS = 1_000  # the first second of speech
PAUSE_MS = 700  # speech after a pause this long has an onset, too
ALWAYS_CAPITAL = ("I", "I'm", "I'll", "I've", "I'd")


@dataclass(frozen=True)
class Borders:
    """Borders between finals where the reference's sentence goes on, and those of them that hide it.

    At an invented border the final ends with a full stop, or the next one begins with a capital that the reference
    does not have. `ended_turns` are those at which the final said that the speaker was done.
    """

    in_sentence: int = 0
    invented: int = 0
    ended_turns: int = 0

    def __add__(self, other: "Borders") -> "Borders":
        return Borders(
            self.in_sentence + other.in_sentence,
            self.invented + other.invented,
            self.ended_turns + other.ended_turns,
        )


def judge_borders(finals: Sequence[tuple[str, bool]], reference: str) -> Borders:
    """Judge the borders between finals, each a text and whether it ended a turn, by a punctuated reference.

    A border counts only if the words on both sides of it were recognised and are neighbours in the reference.

    >>> judge_borders([("Ask not.", True), ("What your country", False)], "Ask not what your country can do.")
    Borders(in_sentence=1, invented=1, ended_turns=1)
    """
    told = [(text.split(), ends_turn) for text, ends_turn in finals if text.strip()]
    words = [word for text, _ in told for word in text]
    said = reference.split()
    place = dict(_matches(words, said))
    found = Borders()
    border = 0
    for (text, ends_turn), (following, _) in pairwise(told):
        border += len(text)
        before, after = place.get(border - 1), place.get(border)
        if before is None or after != before + 1 or said[before].rstrip("\"')").endswith(tuple(STOPS)):
            continue
        first = following[0]
        capital = first[0].isupper() and first not in ALWAYS_CAPITAL and not said[after][0].isupper()
        invented = text[-1].rstrip("\"')").endswith(tuple(STOPS)) or capital
        found += Borders(1, int(invented), int(ends_turn))
    return found


def is_punctuated(text: str) -> bool:
    """Return True if a reference tells where its sentences end: it has stops and both cases."""
    return any(stop in text for stop in STOPS) and text != text.lower() and text != text.upper()


def lost_at_onsets(whole: Sequence[Word], live: str, reference: str) -> tuple[int, int]:
    """Return how many words the whole file has right in the first second after an onset, and how many live text lacks.

    An onset is the first word of the whole file, or one behind a pause of `PAUSE_MS`.

    >>> lost_at_onsets([Word(word="We", start_ms=0, end_ms=90, confidence=1)], "are gathered", "we are gathered")
    (1, 1)
    """
    words = [word.word for word in whole]
    right = {at for at, _ in _matches(words, reference.split())}
    has = {at for at, _ in _matches(words, live.split())}
    found = lost = 0
    onset_ms, ended_ms = 0, -PAUSE_MS
    for at, word in enumerate(whole):
        if word.start_ms - ended_ms >= PAUSE_MS:
            onset_ms = word.start_ms
        ended_ms = word.end_ms
        if word.start_ms < onset_ms + ONSET_MS and at in right:
            found += 1
            lost += at not in has
    return found, lost


def _matches(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of indices at which two lists have the same words in the same order."""
    matcher = SequenceMatcher(None, [_bare(w) for w in words], [_bare(w) for w in others], autojunk=False)
    blocks = matcher.get_matching_blocks()
    return [(block.a + offset, block.b + offset) for block in blocks for offset in range(block.size)]


def _bare(word: str) -> str:
    return "".join(character for character in word.lower() if character.isalnum() or character == "'")
