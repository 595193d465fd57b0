"""The model's transcripts, and the part of an open segment's text that is stable.

A `Transcript` is the model's answer for one piece of audio. A `Hypothesis` is built from the transcripts of a growing
segment by LocalAgreement (Liu et al., 2020; Macháček et al., Turning Whisper into Real-Time): the prefix on which two
successive transcripts agree is stable. It only grows within a segment. A later transcript that contradicts it changes
the tail alone, and the final is free to differ.
"""

from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict


class TranscriptWord(BaseModel):
    """A word and its times, counted from the start of the audio that was sent."""

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
    end_logprob: float | None = None  # of the end of the text
    model: str
    version: str

    def shifted(self, by_ms: int) -> Self:
        """Return the transcript with its words later by `by_ms`."""
        words = [
            word.model_copy(update={"start_ms": word.start_ms + by_ms, "end_ms": word.end_ms + by_ms})
            for word in self.words
        ]
        return self.model_copy(update={"words": words})


@dataclass(frozen=True)
class Hypothesis:
    """The words of an open segment: those that are stable, and the tail that may still change."""

    stable: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the hypothesis."""
        return self.stable + self.tail

    @property
    def text(self) -> str:
        """The whole hypothesis."""
        return " ".join(self.words)

    @property
    def stable_text(self) -> str:
        """The stable prefix; `text` begins with it."""
        return " ".join(self.stable)

    def extend(self, transcript: Transcript) -> "Hypothesis":
        """Return the hypothesis that follows when `transcript` is the newest of the segment so far."""
        return agree(self, transcript.text)


def agree(before: Hypothesis, text: str) -> Hypothesis:
    """Return the hypothesis that follows `before` when `text` is the new transcript of the segment so far."""
    words = tuple(text.split())
    agreed = 0
    for old, new in zip(before.words, words, strict=False):
        if old != new:
            break
        agreed += 1
    if agreed <= len(before.stable):  # the transcript contradicts or ends within the stable prefix, which stays
        return Hypothesis(before.stable, words[len(before.stable) :])
    return Hypothesis(words[:agreed], words[agreed:])
