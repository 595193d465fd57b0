"""Whisper's tokens: special ones, suppressed ones, text and words from ids.

Source: `Tokenizer` of openai-whisper's `tokenizer.py`.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .requests import Task

_MULTILINGUAL_FROM = 51865  # the reference calls a model with this many tokens or more multilingual
N_TIMESTAMPS = 1501  # from 0.00 to 30.00 s, every 20 ms
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages written without spaces
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Symbols of annotations and of music, which are written but never spoken: `non_speech_tokens` of the reference.
_SYMBOLS = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
]
_MUSIC = "♩♪♫♬♭♮♯"


class Tokenizer:
    """The tokens of one model. `n_vocab` counts its embeddings, timestamps included.

    Raises `ValueError` where the encoding lacks one of Whisper's special tokens.
    """

    def __init__(self, encoding: tokenizers.Tokenizer, n_vocab: int) -> None:
        self.encoding, self.n_vocab = encoding, n_vocab
        self.is_multilingual = n_vocab >= _MULTILINGUAL_FROM  # the model knows languages and tasks
        self.eot = self.special("endoftext")  # ends a text; every smaller id is text
        self.sot = self.special("startoftranscript")  # stands before language and task in every prompt
        self.sot_prev = self.special("startofprev")  # stands before earlier text, which in turn stands before `sot`
        self.transcribe = self.special("transcribe")  # the task of writing what is said, in its language
        self.translate = self.special("translate")  # the task of writing it in English
        self.no_speech = self.special("nospeech", "nocaptions")  # its probability after `sot` is that of no speech
        self.no_timestamps = self.special("notimestamps")  # ends the prompt where no timestamps are asked for
        self.timestamp_begin = self.no_timestamps + 1  # 0.00; each id after it is 20 ms later
        # Codes and their tokens, in the order of the ids. An English-only model has the token, but never uses it.
        self.languages = {"en": self.sot + 1}
        if self.is_multilingual:
            ids = range(self.sot + 1, self.translate)
            self.languages = {str(encoding.id_to_token(i)).strip("<|>"): i for i in ids}
        self.suppress_blank = (*self.encode(" "), self.eot)  # what `SuppressBlank` forbids at the beginning of a text
        self.suppress_tokens = self._find_suppress_tokens()  # what `SuppressTokens` forbids everywhere

    @classmethod
    def from_json(cls, tokenizer_json: bytes, n_vocab: int) -> Tokenizer:
        """Read a `tokenizer.json`. Raises `ValueError` where it is not Whisper's, or not that of this model."""
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
        """Return special tokens, and symbols that are never spoken."""
        names = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")
        suppressed = {self.no_speech, *(self.special(name) for name in names)}
        # A hyphen and a quote are allowed within a word, but not at the beginning of one.
        suppressed |= {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in (*_SYMBOLS, *_MUSIC):
            for tokens in (self.encode(symbol), self.encode(f" {symbol}")):
                # A symbol of several tokens shares its first one with other text, unless it is of music.
                if len(tokens) == 1 or symbol in _MUSIC:
                    suppressed.add(tokens[0])
        return tuple(sorted(suppressed))

    def encode(self, text: str) -> list[int]:
        """Return the ids of text, without special tokens around it."""
        ids: list[int] = self.encoding.encode(text, add_special_tokens=False).ids
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of earlier text, encoded as the reference encodes a prompt; none for blank text."""
        return self.encode(f" {text.strip()}") if text.strip() else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ids; special tokens and timestamps are left out."""
        text: str = self.encoding.decode([t for t in tokens if t < self.eot], skip_special_tokens=False)
        return text

    def split_to_word_tokens(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Split text into words with their tokens; joined, the words are the text, leading spaces included."""
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

        A token may hold a part of a character's bytes, which decodes to the replacement character. Where the whole text
        has a replacement character at the same place, it is what was decoded and not a part.
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
