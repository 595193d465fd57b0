"""Whisper's tokenizer: ids of special and suppressed tokens, and conversion between ids, text and words.

Source: `Tokenizer` of openai-whisper's `tokenizer.py`.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .requests import Task

_MULTILINGUAL_FROM = 51865  # a model with at least this many tokens is multilingual, as in the reference
N_TIMESTAMPS = 1501  # from 0.00 to 30.00 s in steps of 20 ms
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages written without spaces
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Symbols of annotations and music, which are written but never spoken: `non_speech_tokens` of the reference.
_SYMBOLS = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
]
_MUSIC = "♩♪♫♬♭♮♯"


class Tokenizer:
    """The tokens of one model. `n_vocab` is the number of its token embeddings, including timestamps.

    Raises `ValueError` if the encoding lacks one of Whisper's special tokens.
    """

    def __init__(self, encoding: tokenizers.Tokenizer, n_vocab: int) -> None:
        self.encoding, self.n_vocab = encoding, n_vocab
        self.is_multilingual = n_vocab >= _MULTILINGUAL_FROM  # the model knows languages and tasks
        self.eot = self.special("endoftext")  # ends a text; every smaller id is text
        self.sot = self.special("startoftranscript")  # precedes language and task in every prompt
        self.sot_prev = self.special("startofprev")  # precedes earlier text, which itself precedes `sot`
        self.transcribe = self.special("transcribe")  # the task of writing what is said, in its language
        self.translate = self.special("translate")  # the task of writing it in English
        self.no_speech = self.special("nospeech", "nocaptions")  # its probability after `sot`: the audio has no speech
        self.no_timestamps = self.special("notimestamps")  # ends the prompt of a text without timestamps
        self.timestamp_begin = self.no_timestamps + 1  # 0.00; each id after it is 20 ms later
        # Language codes and their tokens, by id. An English-only model has the token <|en|>, but never uses it.
        self.languages = {"en": self.sot + 1}
        if self.is_multilingual:
            ids = range(self.sot + 1, self.translate)
            self.languages = {str(encoding.id_to_token(i)).strip("<|>"): i for i in ids}
        self.suppress_blank = (*self.encode(" "), self.eot)  # forbidden as the first token by `SuppressBlank`
        self.suppress_tokens = self._find_suppress_tokens()  # forbidden everywhere by `SuppressTokens`

    @classmethod
    def from_json(cls, tokenizer_json: bytes, n_vocab: int) -> Tokenizer:
        """Read a `tokenizer.json`. Raises `ValueError` if it is not Whisper's, or not that of this model."""
        tokenizer = cls(tokenizers.Tokenizer.from_str(tokenizer_json.decode()), n_vocab)
        n_wanted = tokenizer.timestamp_begin + N_TIMESTAMPS
        if n_wanted != n_vocab:
            raise ValueError(
                f"the tokenizer is for {n_wanted} tokens, the model has {n_vocab}: it is not of these weights"
            )
        return tokenizer

    def special(self, *names: str) -> int:
        """Return the id of the first of these special tokens that the tokenizer has."""
        for name in names:
            token: int | None = self.encoding.token_to_id(f"<|{name}|>")
            if token is not None:
                return token
        raise ValueError(f"the tokenizer has no <|{names[0]}|>: it is not Whisper's")

    def sot_sequence(self, language: str, task: Task) -> tuple[int, ...]:
        """Return `sot`, then language and task where the model knows several."""
        if not self.is_multilingual:
            return (self.sot,)
        return (self.sot, self.languages[language], self.special(task))

    def _find_suppress_tokens(self) -> tuple[int, ...]:
        """Return the ids of special tokens, and of symbols that are never spoken."""
        names = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")
        suppressed = {self.no_speech, *(self.special(name) for name in names)}
        # A hyphen and an apostrophe are allowed within a word, but not at its beginning.
        suppressed |= {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in (*_SYMBOLS, *_MUSIC):
            for tokens in (self.encode(symbol), self.encode(f" {symbol}")):
                # If a symbol takes several tokens, the first may also begin other text, so it stays allowed. As in the
                # reference, music symbols are an exception.
                if len(tokens) == 1 or symbol in _MUSIC:
                    suppressed.add(tokens[0])
        return tuple(sorted(suppressed))

    def encode(self, text: str) -> list[int]:
        """Return the ids of text, without any special tokens."""
        ids: list[int] = self.encoding.encode(text, add_special_tokens=False).ids
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of earlier text with one leading space, as the reference encodes a prompt; none if blank."""
        return self.encode(f" {text.strip()}") if text.strip() else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ids, without special tokens and timestamps."""
        text: str = self.encoding.decode([t for t in tokens if t < self.eot], skip_special_tokens=False)
        return text

    def split_to_word_tokens(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Split text into words with their tokens. Words keep their leading spaces, so together they are the text."""
        characters = self.split_tokens_on_unicode(tokens)
        if language in UNSPACED:
            return characters
        words: list[tuple[str, list[int]]] = []
        for text, ids in characters:
            if not words or text.startswith(" ") or text.strip() in string.punctuation:
                words.append((text, ids))
            else:
                words[-1] = (words[-1][0] + text, words[-1][1] + ids)
        return words

    def split_tokens_on_unicode(self, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Split text into the shortest runs of tokens that decode to whole characters.

        A token may hold only some of the bytes of a character, which decode to the replacement character. If the whole
        text has a replacement character at the same place, it is part of the text, and the run is complete.
        """
        whole = self.decode(tokens)
        runs: list[tuple[str, list[int]]] = []
        pending: list[int] = []
        offset = 0
        for token in tokens:
            pending.append(token)
            text = self.decode(pending)
            at = text.find(_REPLACEMENT)
            if at < 0 or whole[offset + at : offset + at + 1] == _REPLACEMENT:
                runs.append((text, pending))
                pending, offset = [], offset + len(text)
        return runs
