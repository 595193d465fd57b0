"""Build the answer to a request: text, tokens and words of all its parts, timed from the start of its audio."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from .audio import N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from .fallback import compression_ratio
from .timing import time_words
from .tokenizer import UNSPACED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .aligner import Aligner
    from .decoding import DecodingResult
    from .requests import Task
    from .slots import Window
    from .tokenizer import Tokenizer


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
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Result:
    """The answer to one request, with the fields of the interface. `text` is "" if there is no speech."""

    text: str
    language: str
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    avg_logprob: float
    no_speech_prob: float
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
        words=tuple(word for part in spoken for word in part.words),
        avg_logprob=float(np.average([r.avg_logprob for r in averaged], weights=[len(r.tokens) + 1 for r in averaged])),
        no_speech_prob=first.result.no_speech_prob,
        compression_ratio=compression_ratio(text),
        window_s=first.window_s,
        model=model,
        version=version,
    )


def word_times(part: Part, task: Task, aligner: Aligner, tokenizer: Tokenizer) -> tuple[Word, ...]:
    """Return the words of a part with their times. A word's confidence is the mean probability of its tokens."""
    result = part.result
    text = [pair for pair in zip(result.tokens, result.logprobs, strict=True) if pair[0] < tokenizer.eot]
    if not text:
        return ()
    tokens = [token for token, _ in text]
    probabilities = [float(np.exp(logprob)) for _, logprob in text]
    starts_s = aligner.token_starts(part.window, tokens, result.language, part.n_samples, task)
    words = tokenizer.split_to_word_tokens(tokens, result.language)
    seek_s = part.seek / SAMPLE_RATE
    return tuple(
        Word(
            word=timing.word.strip(),
            start_ms=round((seek_s + timing.start_s) * 1000),
            end_ms=round((seek_s + timing.end_s) * 1000),
            confidence=timing.probability,
        )
        for timing in time_words(words, starts_s, probabilities, spaced=result.language not in UNSPACED)
    )
