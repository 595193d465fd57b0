"""Word error rates, after the normalisation with which Whisper's authors report theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisperline_models.gate.speech import Clip

UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}  # their letters are counted as words


@dataclass(frozen=True)
class Score:
    """What a version made of a set; `tokens` by clip. The word error rate is over the words of all clips together."""

    word_error_rate: float
    by_language: dict[str, float]
    heard_in_non_speech: tuple[str, ...]
    tokens: dict[str, tuple[int, ...]]

    def equal_tokens(self, other: Score) -> int:
        """On how many clips two versions agree, token for token."""
        return sum(other.tokens[clip] == tokens for clip, tokens in self.tokens.items())


def score(spoken: Sequence[Clip], unspoken: Sequence[Clip], answers: Mapping[str, Mapping[str, Any]]) -> Score:
    """Score answers ("text" and "tokens" by clip id) against what is said in the clips."""
    texts = {clip: str(answer["text"]) for clip, answer in answers.items()}
    languages = {clip.language: [c for c in spoken if c.language == clip.language] for clip in spoken}
    return Score(
        word_error_rate=word_error_rate(spoken, texts),
        by_language={language: word_error_rate(clips, texts) for language, clips in sorted(languages.items())},
        heard_in_non_speech=tuple(f"{clip.id}: {texts[clip.id]}" for clip in unspoken if texts[clip.id].strip()),
        tokens={clip: tuple(answer["tokens"]) for clip, answer in answers.items()},
    )


def word_error_rate(clips: Sequence[Clip], texts: Mapping[str, str]) -> float:
    """Substitutions, deletions and insertions over the words that were said."""
    said = [_normalize(clip.text, clip.language) for clip in clips]
    heard = [_normalize(texts[clip.id], clip.language) for clip in clips]
    return float(jiwer.wer(said, heard))


_ENGLISH = EnglishTextNormalizer()
_BASIC = BasicTextNormalizer()
_BASIC_LETTERS = BasicTextNormalizer(split_letters=True)


def _normalize(text: str, language: str) -> str:
    if language == "en":
        return str(_ENGLISH(text)).strip()
    return str(_BASIC_LETTERS(text) if language in UNSPACED else _BASIC(text)).strip()
