"""What the decoder is fed before it may choose: previous text, the start, language and task.

Source: `_get_initial_tokens` and `_detect_language` of the reference's `decoding.py`; hotwords as faster-whisper's
`get_prompt` places them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .requests import Request, Task
    from .vocabulary import Vocabulary

TEXT_CONTEXT = 448  # tokens that a decoder of any official size can hold
SAMPLE_LENGTH = TEXT_CONTEXT // 2  # tokens at most in a window
MAX_PREVIOUS = TEXT_CONTEXT // 2 - 1  # tokens of hotwords and prompt


@dataclass(frozen=True)
class Prompt:
    """The tokens that a row is fed from position 0 on.

    The probability of no speech is read where `tokens[sot_index]` was fed. `language_index` is where a detected
    language goes, None where none is to be detected. The reference detects it with the start token alone before
    it: so where `sot_index` is not 0, feed `tokens[sot_index]` at position 0, read the language, and begin again
    at position 0 with the whole prompt.
    """

    tokens: tuple[int, ...]
    sot_index: int
    language_index: int | None

    @property
    def sample_length(self) -> int:
        """How many tokens may follow: half of the context, or what the prompt leaves of it."""
        return min(SAMPLE_LENGTH, TEXT_CONTEXT + 1 - len(self.tokens))  # the last one is chosen, but never fed

    def with_language(self, token: int) -> Prompt:
        """This prompt with the language that was detected."""
        if self.language_index is None:
            return self
        at = self.language_index
        return replace(self, tokens=(*self.tokens[:at], token, *self.tokens[at + 1 :]), language_index=None)


def build_prompt(request: Request, vocabulary: Vocabulary) -> Prompt:
    """The prompt of a request: what was said before, and what is asked for.

    Where the language is to be detected, English holds its place.
    """
    previous = _previous(request, vocabulary)
    start = start_tokens(request.language or "en", request.task, vocabulary)
    ending = () if request.timestamps else (vocabulary.no_timestamps,)
    detects = vocabulary.is_multilingual and request.language is None
    return Prompt((*previous, *start, *ending), len(previous), len(previous) + 1 if detects else None)


def start_tokens(language: str, task: Task, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The start token; after it language and task, where the model knows several."""
    if not vocabulary.is_multilingual:
        return (vocabulary.start,)
    return (vocabulary.start, vocabulary.languages[language], vocabulary.special(task))


def _previous(request: Request, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The beginning of the hotwords, then as much of the prompt's end as there is room for."""
    hotwords, prompt = (vocabulary.encode_prompt(text) for text in (request.hotwords, request.prompt))
    hotwords = hotwords[:MAX_PREVIOUS]
    kept = [*hotwords, *prompt[max(0, len(prompt) + len(hotwords) - MAX_PREVIOUS) :]]
    return (vocabulary.start_of_previous, *kept) if kept else ()
