"""Whisper's tokens: the special ones, the suppressed ones, text and words from ids (reference: `tokenizer.py`)."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

_MULTILINGUAL_FROM = 51865  # the vocabulary size from which a model is multilingual, as in the reference
N_TIMESTAMPS = 1501  # from 0.00 to 30.00, every 20 ms
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages written without spaces
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SYMBOLS = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
]
_MUSIC = "♩♪♫♬♭♮♯"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one model; `n_vocab` counts the embeddings, timestamps included."""

    tokenizer: Tokenizer
    n_vocab: int

    @classmethod
    def from_json(cls, tokenizer_json: bytes, n_vocab: int) -> Vocabulary:
        """Raises `ValueError` for a tokenizer that lacks Whisper's special tokens, or has them at other places."""
        vocabulary = cls(Tokenizer.from_str(tokenizer_json.decode()), n_vocab)
        _ = vocabulary.suppressed, vocabulary.languages
        if vocabulary.timestamp_begin + N_TIMESTAMPS != n_vocab:
            n_wanted = vocabulary.timestamp_begin + N_TIMESTAMPS
            raise ValueError(
                f"the tokenizer is for {n_wanted} tokens, the model has {n_vocab}: it is not of these weights"
            )
        return vocabulary

    def special(self, *names: str) -> int:
        """The id of the first of these special tokens that the tokenizer has."""
        for name in names:
            token: int | None = self.tokenizer.token_to_id(f"<|{name}|>")
            if token is not None:
                return token
        raise ValueError(f"the tokenizer has no <|{names[0]}|>: it is not Whisper's")

    @cached_property
    def is_multilingual(self) -> bool:
        """Whether the model knows languages and tasks."""
        return self.n_vocab >= _MULTILINGUAL_FROM

    @cached_property
    def end(self) -> int:
        """The end of a text; every smaller id is text."""
        return self.special("endoftext")

    @cached_property
    def start(self) -> int:
        """What every prompt begins with."""
        return self.special("startoftranscript")

    @cached_property
    def no_speech(self) -> int:
        """Its probability after the start tells silence."""
        return self.special("nospeech", "nocaptions")

    @cached_property
    def no_timestamps(self) -> int:
        """Ends the prompt where no timestamps are asked for."""
        return self.special("notimestamps")

    @cached_property
    def transcribe(self) -> int:
        """The task of writing what is said, in its language."""
        return self.special("transcribe")

    @cached_property
    def translate(self) -> int:
        """The task of writing in English what is said in another language."""
        return self.special("translate")

    @cached_property
    def start_of_previous(self) -> int:
        """What comes before the start is text that was said earlier, and it begins with this."""
        return self.special("startofprev")

    @cached_property
    def timestamp_begin(self) -> int:
        """The timestamp 0.00; each id after it is 20 ms later."""
        return self.no_timestamps + 1

    @cached_property
    def languages(self) -> dict[str, int]:
        """Language codes to tokens, in the order of the ids; English alone for an English-only model."""
        if not self.is_multilingual:
            return {"en": self.start + 1}
        ids = range(self.start + 1, self.translate)
        return {str(self.tokenizer.id_to_token(i)).strip("<|>"): i for i in ids}

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Special tokens and the symbols of annotations that are never spoken."""
        names = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")
        special = {self.no_speech, *(self.special(name) for name in names)}
        hyphen_and_quote = {self._encode(" -")[0], self._encode(" '")[0]}
        found = {t for symbol in [*_SYMBOLS, *_MUSIC] for t in self._symbol_tokens(symbol)}
        return tuple(sorted(special | hyphen_and_quote | found))

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """What a text may not begin with."""
        return (*self._encode(" "), self.end)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids, special tokens and timestamps left out."""
        text: str = self.tokenizer.decode([t for t in tokens if t < self.end], skip_special_tokens=False)
        return text

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of text that was said before, as the reference encodes a prompt; none for blank text."""
        return self._encode(f" {text.strip()}") if text.strip() else []

    def split_words(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Words with their tokens; the words joined are the text, leading spaces included."""
        characters = self._split_characters(tokens)
        if language in UNSPACED:
            return characters
        words: list[tuple[str, list[int]]] = []
        for text, ids in characters:
            if not words or text.startswith(" ") or text.strip() in string.punctuation:
                words.append((text, ids))
            else:
                words[-1] = (words[-1][0] + text, words[-1][1] + ids)
        return words

    def _split_characters(self, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The shortest runs of tokens that decode to whole characters."""
        whole, parts, pending, offset = self.decode(tokens), [], [], 0
        for token in tokens:
            pending.append(token)
            text = self.decode(pending)
            at = text.find(_REPLACEMENT)
            if at < 0 or whole[offset + at : offset + at + 1] == _REPLACEMENT:
                parts.append((text, pending))
                pending, offset = [], offset + len(text)
        return parts

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _symbol_tokens(self, symbol: str) -> list[int]:
        encoded = (self._encode(text) for text in (symbol, f" {symbol}"))
        return [tokens[0] for tokens in encoded if len(tokens) == 1 or symbol in _MUSIC]
