"""What of a partial is stable: LocalAgreement (Liu et al., 2020; Macháček et al., Turning Whisper into Real-Time).

The prefix on which two successive hypotheses agree is stable. It only grows within a segment: a later
hypothesis that contradicts it changes the tail alone, and the final is free to say otherwise.
"""

from dataclasses import dataclass


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


def agree(before: Hypothesis, text: str) -> Hypothesis:
    """Return the hypothesis after the model has said `text` of the segment so far."""
    words = tuple(text.split())
    agreed = _common_prefix(before.words, words)
    size = max(len(before.stable), agreed)
    stable = before.stable if agreed <= len(before.stable) else words[:size]
    return Hypothesis(stable, words[size:])


def _common_prefix(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
