"""Build the decoder's prompt: earlier text, then <|startoftranscript|>, language and task, then a prefix.

Source: `_get_initial_tokens` and `_detect_language` of openai-whisper's `decoding.py`; hotwords and, with
timestamps, the prefix are placed as in `get_prompt` of faster-whisper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import RequestError

if TYPE_CHECKING:
    from .requests import Request
    from .tokenizer import Tokenizer

N_TEXT_CTX = 448  # the decoder's context in tokens, the same in every official size
SAMPLE_LEN = N_TEXT_CTX // 2  # the most tokens in the text of one window
MAX_PREVIOUS = N_TEXT_CTX // 2 - 1  # the most tokens of hotwords, earlier text and prefix together
MAX_PREFIX = 200  # the most tokens of a prefix: with SAMPLE_LEN more, the aligner can still take the whole text


@dataclass(frozen=True)
class Prompt:
    """The tokens that the decoder is fed from position 0.

    `sot_index` is the index of <|startoftranscript|> in `tokens`: the step over that token gives the probability of no
    speech. `language_index` is the index of the language to be detected, or None if the language is known.

    The tokens from `text_index` on are those of the prefix, the beginning of the text, which the decoder continues.
    With timestamps, <|0.00|> is the first of them.

    The reference detects the language from <|startoftranscript|> alone. So if earlier text precedes that token, a row
    first feeds that token at position 0, reads the language, and then starts over at position 0 with the whole prompt.
    """

    tokens: tuple[int, ...]
    sot_index: int
    language_index: int | None
    text_index: int

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
    Raises `RequestError` if the prefix is too long.
    """
    prefix = tokenizer.encode_prompt(request.prefix)
    if len(prefix) > MAX_PREFIX:
        raise RequestError(f"options.prefix: has {len(prefix)} tokens, send at most {MAX_PREFIX}")
    room = MAX_PREVIOUS - len(prefix)
    hotwords = tokenizer.encode_prompt(request.hotwords)[:room]
    earlier = tokenizer.encode_prompt(request.prompt)
    previous = [*hotwords, *earlier[max(0, len(earlier) + len(hotwords) - room) :]]
    if previous:
        previous = [tokenizer.sot_prev, *previous]
    # English is a placeholder for a language that is still to be detected.
    sot_sequence = tokenizer.sot_sequence(request.language or "en", request.task)
    beginning = (*previous, *sot_sequence, *(() if request.timestamps else (tokenizer.no_timestamps,)))
    if prefix and request.timestamps:
        prefix = [tokenizer.timestamp_begin, *prefix]
    detects = tokenizer.is_multilingual and request.language is None
    language_index = len(previous) + 1 if detects else None
    return Prompt((*beginning, *prefix), len(previous), language_index, len(beginning))
