"""Build the decoder's prompt: earlier text, then <|startoftranscript|>, language and task.

Source: `_get_initial_tokens` and `_detect_language` of openai-whisper's `decoding.py`; hotwords are placed as in
`get_prompt` of faster-whisper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .requests import Request
    from .tokenizer import Tokenizer

N_TEXT_CTX = 448  # the decoder's context in tokens, the same in every official size
SAMPLE_LEN = N_TEXT_CTX // 2  # the most tokens in the text of one window
MAX_PREVIOUS = N_TEXT_CTX // 2 - 1  # the most tokens of hotwords and earlier text together


@dataclass(frozen=True)
class Prompt:
    """The tokens that the decoder is fed from position 0.

    `sot_index` is the index of <|startoftranscript|> in `tokens`: the step over that token gives the probability of no
    speech. `language_index` is the index of the language to be detected, or None if the language is known.

    The reference detects the language from <|startoftranscript|> alone. So if earlier text precedes that token, a row
    first feeds that token at position 0, reads the language, and then starts over at position 0 with the whole prompt.
    """

    tokens: tuple[int, ...]
    sot_index: int
    language_index: int | None

    @property
    def sample_len(self) -> int:
        """The most tokens that may follow: half of the context, or as many as the prompt leaves room for."""
        return min(SAMPLE_LEN, N_TEXT_CTX + 1 - len(self.tokens))  # + 1: the last token is chosen, but never fed

    def with_language(self, token: int) -> Prompt:
        """Return this prompt with the language that was detected."""
        if self.language_index is None:
            return self
        at = self.language_index
        return replace(self, tokens=(*self.tokens[:at], token, *self.tokens[at + 1 :]), language_index=None)


def build_prompt(request: Request, tokenizer: Tokenizer) -> Prompt:
    """Return the prompt for a request.

    If they are too long, hotwords lose their end, and earlier text loses its beginning: its last words matter most.
    """
    hotwords = tokenizer.encode_prompt(request.hotwords)[:MAX_PREVIOUS]
    earlier = tokenizer.encode_prompt(request.prompt)
    previous = [*hotwords, *earlier[max(0, len(earlier) + len(hotwords) - MAX_PREVIOUS) :]]
    if previous:
        previous = [tokenizer.sot_prev, *previous]
    # English is a placeholder for a language that is still to be detected.
    sot_sequence = tokenizer.sot_sequence(request.language or "en", request.task)
    ending = () if request.timestamps else (tokenizer.no_timestamps,)
    detects = tokenizer.is_multilingual and request.language is None
    return Prompt((*previous, *sot_sequence, *ending), len(previous), len(previous) + 1 if detects else None)
