"""Word error rates, after the normalisation with which Whisper's authors report theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from whisperline_models.engine.tokenizer import UNSPACED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisperline_models.gate.clips import Clip

_NORMALIZE_ENGLISH = EnglishTextNormalizer()
_NORMALIZE_OTHERS = BasicTextNormalizer()
_NORMALIZE_UNSPACED = BasicTextNormalizer(split_letters=True)  # where words are not spaced, letters count as words


@dataclass(frozen=True)
class Answer:
    """A version's transcript of one clip."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """A version's result on a set of clips. The word error rate is over the words of all clips together.

    `heard_in_non_speech` are texts after the clip's id. `tokens` are by the clip's id.
    """

    word_error_rate: float
    by_language: dict[str, float]
    heard_in_non_speech: tuple[str, ...]
    tokens: dict[str, tuple[int, ...]]

    def equal_tokens(self, other: Score) -> int:
        """Count the clips on which two versions agree, token for token."""
        return sum(other.tokens[clip] == tokens for clip, tokens in self.tokens.items())


def score(spoken: Sequence[Clip], unspoken: Sequence[Clip], answers: Mapping[str, Answer]) -> Score:
    """Score answers, by the clip's id, against what is said in the clips."""
    texts = {clip: answer.text for clip, answer in answers.items()}
    by_language = {clip.language: [c for c in spoken if c.language == clip.language] for clip in spoken}
    return Score(
        word_error_rate=word_error_rate(spoken, texts),
        by_language={language: word_error_rate(clips, texts) for language, clips in sorted(by_language.items())},
        heard_in_non_speech=tuple(f"{clip.id}: {texts[clip.id]}" for clip in unspoken if texts[clip.id].strip()),
        tokens={clip: answer.tokens for clip, answer in answers.items()},
    )


def word_error_rate(clips: Sequence[Clip], texts: Mapping[str, str]) -> float:
    """Return substitutions, deletions and insertions over the words that were said. `texts` are by the clip's id."""
    said = [normalize(clip.text, clip.language) for clip in clips]
    heard = [normalize(texts[clip.id], clip.language) for clip in clips]
    return float(jiwer.wer(said, heard))


def normalize(text: str, language: str) -> str:
    """Return a text as it is compared: English by its own rules, other languages by the basic ones."""
    if language == "en":
        return str(_NORMALIZE_ENGLISH(text)).strip()
    return str((_NORMALIZE_UNSPACED if language in UNSPACED else _NORMALIZE_OTHERS)(text)).strip()
