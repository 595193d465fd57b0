"""What the decoder is fed before it may choose: earlier text, then start, language and task.

Source: `_get_initial_tokens` and `_detect_language` of openai-whisper's `decoding.py`; hotwords are placed as
faster-whisper's `get_prompt` places them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .requests import Request
    from .tokenizer import Tokenizer

N_TEXT_CTX = 448  # tokens that the decoder of every official size can hold
SAMPLE_LEN = N_TEXT_CTX // 2  # tokens at most in the text of one window
MAX_PREVIOUS = N_TEXT_CTX // 2 - 1  # tokens of hotwords and earlier text together


@dataclass(frozen=True)
class Prompt:
    """The tokens that a row is fed from position 0 on.

    `sot_index` is where `tokens` holds <|startoftranscript|>: the probability of no speech is read there.
    `language_index` is where a detected language goes, or None where the request names its language.

    The reference detects the language with <|startoftranscript|> as the only token. So where earlier text stands before
    it, a row must first feed that token alone at position 0, read the language, and then begin again at position 0 with
    the whole prompt.
    """

    tokens: tuple[int, ...]
    sot_index: int
    language_index: int | None

    @property
    def sample_len(self) -> int:
        """Return how many tokens may follow: half of the context, or what the prompt leaves of it."""
        return min(SAMPLE_LEN, N_TEXT_CTX + 1 - len(self.tokens))  # the last token is chosen, but never fed

    def with_language(self, token: int) -> Prompt:
        """Return this prompt with the language that was detected."""
        if self.language_index is None:
            return self
        at = self.language_index
        return replace(self, tokens=(*self.tokens[:at], token, *self.tokens[at + 1 :]), language_index=None)


def build_prompt(request: Request, tokenizer: Tokenizer) -> Prompt:
    """Return the prompt for a request.

    Hotwords keep their beginning, and earlier text keeps its end, of which the last words matter most.
    """
    hotwords = tokenizer.encode_prompt(request.hotwords)[:MAX_PREVIOUS]
    earlier = tokenizer.encode_prompt(request.prompt)
    previous = [*hotwords, *earlier[max(0, len(earlier) + len(hotwords) - MAX_PREVIOUS) :]]
    if previous:
        previous = [tokenizer.sot_prev, *previous]
    # English holds the place of a language that is yet to be detected.
    sot_sequence = tokenizer.sot_sequence(request.language or "en", request.task)
    ending = () if request.timestamps else (tokenizer.no_timestamps,)
    detects = tokenizer.is_multilingual and request.language is None
    return Prompt((*previous, *sot_sequence, *ending), len(previous), len(previous) + 1 if detects else None)
