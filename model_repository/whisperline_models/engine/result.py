"""Build the answer to a request: text, tokens and words of all its parts, timed from the start of its audio."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .audio import N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from .fallback import compression_ratio
from .timing import estimate_token_starts, time_words
from .tokenizer import UNSPACED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .aligner import Aligner
    from .decoding import DecodingResult
    from .requests import Task
    from .slots import Window
    from .tokenizer import Tokenizer

SHORTEST_WORD_MS = 20  # one frame of the encoder
_MARKS = " .,?!:;…。，、？！"  # noqa: RUF001 - those of Chinese and Japanese


@dataclass(frozen=True)
class Word:
    """A word without its leading space; times are in ms from the start of the request's audio."""

    word: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass
class Part:
    """The result of decoding one window of a request's audio, which begins `seek` samples into it."""

    seek: int
    n_samples: int  # from `seek` to the end of the audio; if the text was cut, it covers less than that
    window: Window
    window_s: float
    result: DecodingResult
    silent: bool
    prefix: tuple[int, ...] = ()  # tokens of the window's text before those of the result
    prefix_samples: int = 0  # the audio that they cover, from `seek`
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Result:
    """The answer to one request, with the fields of the interface. `text` is "" if there is no speech.

    `last_logprob` is the log probability of the last token of the text, often a full stop: how sure the model is of it.
    It is 0 if there is no text. `language_probs` has the most probable languages, if the language was detected.
    """

    text: str
    language: str
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    avg_logprob: float
    last_logprob: float
    no_speech_prob: float
    language_probs: dict[str, float]
    compression_ratio: float
    window_s: float
    model: str
    version: str

    def to_json(self) -> str:
        """Return the answer as the JSON text of the interface."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def build_result(parts: Sequence[Part], tokenizer: Tokenizer, model: str, version: str) -> Result:
    """Return the answer to a request that was decoded in these parts.

    Parts without speech do not count for the average probability, unless no part has speech.
    """
    first, spoken = parts[0], [part for part in parts if not part.silent]
    text = "".join(tokenizer.decode(part.result.tokens) for part in spoken).strip()
    words = separate_words([word for part in spoken for word in part.words], *_new_audio_ms(parts))
    if first.prefix:
        text, words = without_marks(text, words)
    # A part's timestamps count from the start of the part, the answer's from the start of the request's audio.
    begin, last = tokenizer.timestamp_begin, tokenizer.n_vocab - 1
    tokens: list[int] = []
    for part in spoken:
        shift = part.seek // N_SAMPLES_PER_TOKEN
        tokens += [min(token + shift, last) if token >= begin else token for token in part.result.tokens]
    averaged = [part.result for part in spoken or parts]
    return Result(
        text=text,
        language=first.result.language,
        tokens=tuple(tokens),
        words=words,
        avg_logprob=float(np.average([r.avg_logprob for r in averaged], weights=[len(r.tokens) + 1 for r in averaged])),
        last_logprob=_last_logprob(spoken, tokenizer),
        no_speech_prob=first.result.no_speech_prob,
        language_probs=dict(first.result.language_probs),
        compression_ratio=compression_ratio(text),
        window_s=first.window_s,
        model=model,
        version=version,
    )


def _last_logprob(spoken: Sequence[Part], tokenizer: Tokenizer) -> float:
    for part in reversed(spoken):
        for token, logprob in zip(reversed(part.result.tokens), reversed(part.result.logprobs), strict=True):
            if token < tokenizer.eot:
                return logprob
    return 0.0


def without_marks(text: str, words: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
    """Return a text and its words without the punctuation at their beginning, which belongs to the text before them."""
    while words and not words[0].word.lstrip(_MARKS):
        words = words[1:]
    if words:
        words = (replace(words[0], word=words[0].word.lstrip(_MARKS)), *words[1:])
    return text.lstrip(_MARKS), words


def align_words(part: Part, task: Task, aligner: Aligner, tokenizer: Tokenizer) -> tuple[Word, ...]:
    """Return the words of a part with the times at which the decoder attended to them."""

    def starts_of(tokens: Sequence[int]) -> NDArray[np.float64]:
        text = [*(token for token in part.prefix if token < tokenizer.eot), *tokens]
        starts_s = aligner.token_starts(part.window, text, part.result.language, part.n_samples, task)
        return starts_s[len(text) - len(tokens) :]

    return _time_words(part, starts_of, tokenizer)


def estimate_words(part: Part, tokenizer: Tokenizer) -> tuple[Word, ...]:
    """Return the words of a part with times that are estimated, without a run of the aligner.

    The words share the audio of the part by their lengths in characters. If the text has timestamps, the words between
    two of them share the audio between these.
    """

    def starts_of(tokens: Sequence[int]) -> NDArray[np.float64]:
        return estimate_token_starts(
            part.result.tokens,
            [(text, len(ids)) for text, ids in tokenizer.split_to_word_tokens(tokens, part.result.language)],
            part.prefix_samples / SAMPLE_RATE,
            part.n_samples / SAMPLE_RATE,
            tokenizer.timestamp_begin,
        )

    return _time_words(part, starts_of, tokenizer)


def _time_words(
    part: Part, starts_of: Callable[[Sequence[int]], NDArray[np.float64]], tokenizer: Tokenizer
) -> tuple[Word, ...]:
    """Return the words of a part. A word's confidence is the mean probability of its tokens.

    `starts_of` returns when each of the text tokens begins, in seconds from the start of the part, and as the last
    element when the text ends.
    """
    result = part.result
    text = [pair for pair in zip(result.tokens, result.logprobs, strict=True) if pair[0] < tokenizer.eot]
    if not text:
        return ()
    tokens = [token for token, _ in text]
    probabilities = [float(np.exp(logprob)) for _, logprob in text]
    words = tokenizer.split_to_word_tokens(tokens, result.language)
    seek_s = part.seek / SAMPLE_RATE
    return tuple(
        Word(
            word=timing.word.strip(),
            start_ms=round((seek_s + timing.start_s) * 1000),
            end_ms=round((seek_s + timing.end_s) * 1000),
            confidence=timing.probability,
        )
        for timing in time_words(words, starts_of(tokens), probabilities, spaced=result.language not in UNSPACED)
    )


def separate_words(words: Sequence[Word], begin_ms: int, end_ms: int) -> tuple[Word, ...]:
    """Return words in order, none before the end of the previous one, each at least `SHORTEST_WORD_MS` long.

    Alignment may give a word no time at all, if a single frame of audio has the attention of several tokens. Where two
    words overlap, the first one ends when the second begins. All lie between `begin_ms` and `end_ms`; if these leave
    less than the shortest length for each word, the words share them equally, with at least 1 ms each.
    """
    shortest_ms = max(1, min(SHORTEST_WORD_MS, (end_ms - begin_ms) // max(1, len(words))))
    end_ms = max(end_ms, begin_ms + shortest_ms * len(words))
    separated: list[Word] = []
    earliest_ms = begin_ms
    for index, word in enumerate(words):
        # Leave room for the words that follow.
        latest_ms = end_ms - shortest_ms * (len(words) - index)
        start_ms = min(max(word.start_ms, earliest_ms), latest_ms)
        until_ms = latest_ms + shortest_ms
        if index + 1 < len(words):
            until_ms = min(until_ms, max(words[index + 1].start_ms, start_ms + shortest_ms))
        earliest_ms = min(max(word.end_ms, start_ms + shortest_ms), until_ms)
        separated.append(replace(word, start_ms=start_ms, end_ms=earliest_ms))
    return tuple(separated)


def _new_audio_ms(parts: Sequence[Part]) -> tuple[int, int]:
    """Return where the audio after the prefix begins and ends, in ms from the start of the request's audio."""
    first, last = parts[0], parts[-1]
    return (first.seek + first.prefix_samples) * 1000 // SAMPLE_RATE, (last.seek + last.n_samples) * 1000 // SAMPLE_RATE
