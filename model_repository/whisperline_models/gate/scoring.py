"""Compute word error rates, with the text normalisation that Whisper's authors use for theirs."""

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
_NORMALIZE_UNSPACED = BasicTextNormalizer(split_letters=True)  # without spaces, each letter counts as a word


@dataclass(frozen=True)
class Answer:
    """A version's transcript of one clip."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """A version's result on a set of clips. The word error rate is over the words of all clips together.

    `heard_in_non_speech` lists the texts given for clips without speech, each as "id: text". `tokens` are by clip id.
    """

    word_error_rate: float
    by_language: dict[str, float]
    heard_in_non_speech: tuple[str, ...]
    tokens: dict[str, tuple[int, ...]]

    def equal_tokens(self, other: Score) -> int:
        """Count the clips on which two versions agree, token for token."""
        return sum(other.tokens[clip] == tokens for clip, tokens in self.tokens.items())


def score(spoken: Sequence[Clip], unspoken: Sequence[Clip], answers: Mapping[str, Answer]) -> Score:
    """Score answers against the transcripts of the clips. `answers` are by clip id."""
    texts = {clip: answer.text for clip, answer in answers.items()}
    by_language = {clip.language: [c for c in spoken if c.language == clip.language] for clip in spoken}
    return Score(
        word_error_rate=word_error_rate(spoken, texts),
        by_language={language: word_error_rate(clips, texts) for language, clips in sorted(by_language.items())},
        heard_in_non_speech=tuple(f"{clip.id}: {texts[clip.id]}" for clip in unspoken if texts[clip.id].strip()),
        tokens={clip: answer.tokens for clip, answer in answers.items()},
    )


def word_error_rate(clips: Sequence[Clip], texts: Mapping[str, str]) -> float:
    """Return the sum of substitutions, deletions and insertions per word that was said. `texts` are by clip id."""
    said = [normalize(clip.text, clip.language) for clip in clips]
    heard = [normalize(texts[clip.id], clip.language) for clip in clips]
    return float(jiwer.wer(said, heard))


def normalize(text: str, language: str) -> str:
    """Normalise a text for comparison: English by its own rules, other languages by the basic ones."""
    if language == "en":
        return str(_NORMALIZE_ENGLISH(text)).strip()
    return str((_NORMALIZE_UNSPACED if language in UNSPACED else _NORMALIZE_OTHERS)(text)).strip()
