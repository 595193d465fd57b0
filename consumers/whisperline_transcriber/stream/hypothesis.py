"""The model's transcripts, and the text of an open segment that follows from them.

A `Transcript` is the model's answer for one piece of audio. A `Hypothesis` is built from the transcripts of a growing
segment by LocalAgreement (Liu et al., 2020; Macháček et al., Turning Whisper into Real-Time): the words on which
successive transcripts agree are stable. Two sure words are enough, and the less sure the model is of a word, the more
transcripts must agree on it. Stable words only grow in number within a segment. A later transcript that contradicts
them is aligned to them, and only what it says behind them is used. The final is free to differ.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from pydantic import BaseModel, ConfigDict

# The sum of a word's confidences, over the successive transcripts that have it, from which on it is stable. Measured on
# growing pieces of telephone calls and interviews with tiny.en: of the stable words 3 % differed from the final. Where
# any two transcripts decide, 15 % did, and hardly more words were stable.
STABLE_SUPPORT = 1.25

_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # Whisper's languages that are written without spaces


class TranscriptWord(BaseModel):
    """A word and its times, counted from the start of the audio that was sent.

    In a language without spaces it is a character, or a few.
    """

    model_config = ConfigDict(frozen=True)

    word: str
    start_ms: int
    end_ms: int
    confidence: float


class Transcript(BaseModel):
    """The model's answer for one piece of audio. An empty `text` means that the audio holds no words."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    text: str
    language: str
    words: list[TranscriptWord]
    avg_logprob: float
    model: str
    version: str
    last_logprob: float = 0.0  # log probability of the last token of `text`, often its full stop
    language_probs: dict[str, float] = {}  # of the most probable languages, if the language was detected

    def shifted(self, by_ms: int) -> Self:
        """Return the transcript with its words later by `by_ms`."""
        words = [
            word.model_copy(update={"start_ms": word.start_ms + by_ms, "end_ms": word.end_ms + by_ms})
            for word in self.words
        ]
        return self.model_copy(update={"words": words})


@dataclass(frozen=True)
class _Piece:
    """A word in its text."""

    space: str  # before the word
    core: str  # the word without `closing`
    closing: str  # the punctuation at its end
    key: str  # the word for comparisons: without case, and without the punctuation around it
    times: TranscriptWord
    support: float  # the sum of its confidences over the successive transcripts that have it here


@dataclass(frozen=True)
class Hypothesis:
    """The words of an open segment: those that are stable, and the tail that may still change.

    The punctuation behind the last stable word is not stable, because it depends on the word that follows: the stable
    words "ask not" may go on as "ask not, what" or "ask not!".
    """

    _stable: tuple[_Piece, ...] = ()
    _tail: tuple[_Piece, ...] = ()

    @property
    def text(self) -> str:
        """The whole hypothesis."""
        return _written(self._stable + self._tail)

    @property
    def stable_text(self) -> str:
        """The stable beginning of the text; `text` begins with it."""
        return _written((*self._stable[:-1], *(replace(last, closing="") for last in self._stable[-1:])))

    @property
    def words(self) -> tuple[TranscriptWord, ...]:
        """The words of `text`. Their times come from different transcripts, so neighbours may overlap."""
        return tuple(
            piece.times.model_copy(update={"word": piece.core + piece.closing}) for piece in self._stable + self._tail
        )

    @property
    def confidence(self) -> float:
        """The mean confidence of the words, from 0 to 1; 0 without words."""
        pieces = self._stable + self._tail
        mean = math.fsum(piece.times.confidence for piece in pieces) / max(1, len(pieces))
        return min(1.0, max(0.0, mean))

    def extend(self, transcript: Transcript) -> "Hypothesis":
        """Return the hypothesis that follows when `transcript` is the newest one of the segment so far."""
        new = _pieces(transcript)
        follows = _end_of_prefix(self._stable, new)
        stable, tail = self._stable, new[follows:]
        if stable:
            # The newest transcript decides how the last stable word ends, if it has this word.
            same = follows > 0 and new[follows - 1].key == stable[-1].key
            stable = (*stable[:-1], replace(stable[-1], closing=new[follows - 1].closing if same else ""))
        supported = list(tail)
        for i, (old_piece, new_piece) in enumerate(zip(self._tail, tail, strict=False)):
            # A transcript often ends with a full stop that goes away, so last words are compared without punctuation.
            is_last = i + 1 in (len(self._tail), len(tail))
            if old_piece.key != new_piece.key or not (is_last or _written([old_piece]) == _written([new_piece])):
                break
            supported[i] = replace(new_piece, support=old_piece.support + new_piece.support)
        n_stable = 0
        while n_stable < len(supported) and supported[n_stable].support >= STABLE_SUPPORT:
            n_stable += 1
        return Hypothesis((*stable, *supported[:n_stable]), tuple(supported[n_stable:]))

    def correct(self, transcript: Transcript) -> "Hypothesis":
        """Return the hypothesis that follows when `transcript` will be the final's if the speaker is done.

        It is the same as `extend`, except that stable words which the transcript contradicts become part of the tail:
        people then read at a pause what the final will say.
        """
        kept = _common_beginning(self._stable, _pieces(transcript))
        return Hypothesis(self._stable[:kept], self._stable[kept:] + self._tail).extend(transcript)


def _pieces(transcript: Transcript) -> tuple[_Piece, ...]:
    """Return the words of a transcript with the spaces before them.

    If the words are not those of the text (none were asked for), the text is divided at its spaces, with times of 0.
    """
    text = transcript.text.strip()
    first_space = "" if transcript.language in _UNSPACED else " "
    placed: list[tuple[str, TranscriptWord]] = []
    at = 0
    for word in transcript.words:
        start = text.find(word.word, at)
        if start < 0 or text[at:start].strip():
            break
        if word.word:
            placed.append((text[at:start] if at else first_space, word))
        at = start + len(word.word)
    if text[at:].strip():
        confidence = min(1.0, math.exp(transcript.avg_logprob))
        placed = [
            (" ", TranscriptWord(word=word, start_ms=0, end_ms=0, confidence=confidence)) for word in text.split()
        ]
    pieces = []
    for space, word in placed:
        core = _without_closing(word.word) or word.word
        key = _without_closing(core[::-1])[::-1].casefold() or core
        support = min(1.0, max(0.0, word.confidence))
        pieces.append(_Piece(space, core, word.word[len(core) :], key, word, support))
    return tuple(pieces)


def _written(pieces: Sequence[_Piece]) -> str:
    return "".join(f"{piece.space}{piece.core}{piece.closing}" for piece in pieces).lstrip()


def _end_of_prefix(prefix: Sequence[_Piece], new: Sequence[_Piece]) -> int:
    """Return the number of words at the beginning of `new` that stand for the words of `prefix`.

    It is the beginning with the smallest edit distance to `prefix`. Among equals it is the one with the most words in
    common, then the one that ends at the most similar time, then the longest: a word that is missing comes back with
    the next transcript, but one that is told twice is wrong. So a word follows itself only where `new` says it twice.
    """
    same = _common_beginning(prefix, new)
    if same == len(prefix):  # nearly always
        return same
    old_keys, new_keys = [piece.key for piece in prefix[same:]], [piece.key for piece in new[same:]]
    # Each row has the costs of the beginnings of `new` against one more word of `prefix`. A word in common lowers the
    # cost by 1, which all words together cannot raise to one edit.
    edit = len(old_keys) + 1
    costs = [edit * n for n in range(len(new_keys) + 1)]
    for old_key in old_keys:
        above = costs
        costs = [above[0] + edit]
        for n, new_key in enumerate(new_keys):
            replaced = above[n] + (-1 if old_key == new_key else edit)
            costs.append(min(replaced, above[n + 1] + edit, costs[n] + edit))
    end_ms = prefix[-1].times.end_ms

    def worth(n: int) -> tuple[int, int, int]:
        new_end_ms = new[n - 1].times.end_ms if n else 0
        return costs[n - same], abs(end_ms - new_end_ms), -n

    return min(range(same, len(new) + 1), key=worth)


def _common_beginning(one: Sequence[_Piece], other: Sequence[_Piece]) -> int:
    """Return the number of words that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a.key != b.key), min(len(one), len(other)))


def _without_closing(word: str) -> str:
    """Return the word without the punctuation at its end."""
    end = len(word)
    while end and unicodedata.category(word[end - 1]).startswith("P"):
        end -= 1
    return word[:end]
