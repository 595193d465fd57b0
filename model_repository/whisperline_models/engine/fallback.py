"""Temperature fallback: which result of decoding to trust, which to decode again, and when there was no speech.

Source: `decode_with_fallback` of openai-whisper's `transcribe.py`, which raises the temperature while a text repeats
itself or is improbable, and in the end keeps whatever came last. Three things differ here.

- The first attempt is over a window cut to the audio, which costs less; the others are over 30 s.
- An improbable text is decoded once more over 30 s and then held to be no speech, unless the model is sure that
  somebody speaks: then the most probable result stays, because indistinct speech is not silence. A higher temperature
  would make it less probable still, and what noise and music gave at 1.0 was invented.
- A text that merely repeats itself survives if it was probable and ended by itself, because people do repeat
  themselves. But where any attempt hears no speech at all, nothing survives: on noise the model first says one
  sentence over and over, and then nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .audio import CHUNK_LENGTH_S, SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decoding import DecodingResult

# The reference's thresholds, under its names.
COMPRESSION_RATIO_THRESHOLD = 2.4  # a text that compresses better repeats itself
LOGPROB_THRESHOLD = -1.0  # an average below it is improbable
NO_SPEECH_THRESHOLD = 0.6

# A run of up to MAX_REPEATED_TOKENS tokens that comes more than MAX_REPEATS times in a row is a loop, even where the
# text around it keeps the compression ratio low.
MAX_REPEATS = 8
MAX_REPEATED_TOKENS = 8

MAX_IMPROBABLE = 2  # improbable results over 30 s after which no other attempt is made
REPEATED_LOGPROB_THRESHOLD = -0.5  # a repetition is believed above it
INDISTINCT_LOGPROB_THRESHOLD = -1.5  # an improbable text is kept above it, if speech was heard
INDISTINCT_NO_SPEECH_THRESHOLD = 0.2  # below it, speech was heard

# On silence and music a small model is fairly sure of "you" or "Thank you." (averages of -0.4 to -1). So the fewer
# tokens a text has for its length, and the likelier no speech is, the more probable the text must be.
SPARSE_S_PER_TOKEN = 1.5
SPARSE_NO_SPEECH_THRESHOLD = 0.5
SPARSE_LOGPROB_THRESHOLD = -0.7  # even where speech seems likely
DOUBTFUL_LOGPROB_THRESHOLD = -0.9  # above NO_SPEECH_THRESHOLD
VERY_DOUBTFUL_NO_SPEECH_THRESHOLD = 0.85  # digital silence has 0.88 to 0.95, depending on the processor
VERY_DOUBTFUL_LOGPROB_THRESHOLD = -0.3

# A window holds at least this much after the audio: a timestamp at its very edge may make the decoder begin anew.
MARGIN_S = 0.3


class Verdict(Enum):
    """What one result of decoding is worth."""

    GOOD = "good"
    SILENT = "silent"
    REPEATED = "repeated"
    IMPROBABLE = "improbable"


@dataclass(frozen=True)
class Attempt:
    """One try at decoding: over a window of this length, at this temperature."""

    window_s: float
    temperature: float


@dataclass(frozen=True)
class Settled:
    """The result that is kept; `silent` if it is held to be no speech."""

    result: DecodingResult
    silent: bool


class Fallback:
    """The attempts that are left for some audio, and the best that came of the others.

    Ask `next_attempt`, decode, and hand what came of it to `take`, until that settles.
    """

    def __init__(self, n_samples: int, windows_s: Sequence[float], temperatures: Sequence[float]) -> None:
        self._attempts = plan_attempts(n_samples, windows_s, temperatures)
        self._n_improbable = 0
        self._repeated: DecodingResult | None = None  # the first over 30 s that may be what was said
        self._indistinct: DecodingResult | None = None  # the most probable of the improbable that may be

    def next_attempt(self) -> Attempt:
        """Take the next attempt."""
        return self._attempts.pop(0)

    def take(self, attempt: Attempt, result: DecodingResult, verdict: Verdict) -> Settled | None:
        """Settle on this result, on an earlier one or on silence; None where another attempt must be made."""
        if verdict is Verdict.GOOD:
            return Settled(result, silent=False)
        if verdict is Verdict.SILENT:
            return Settled(result, silent=True)
        if attempt.window_s == CHUNK_LENGTH_S:  # over a shorter window a text may fail for the window's sake alone
            self._n_improbable += verdict is Verdict.IMPROBABLE
            if verdict is Verdict.REPEATED and self._repeated is None and is_believable_repetition(result):
                self._repeated = result
        is_best = self._indistinct is None or result.avg_logprob > self._indistinct.avg_logprob
        if verdict is Verdict.IMPROBABLE and is_best and is_indistinct_speech(result):
            self._indistinct = result
        if self._attempts and self._n_improbable < MAX_IMPROBABLE:
            return None
        kept = self._repeated or self._indistinct
        return Settled(kept or result, silent=kept is None)


def plan_attempts(n_samples: int, windows_s: Sequence[float], temperatures: Sequence[float]) -> list[Attempt]:
    """Return every attempt that may be made, in order.

    The first temperature comes in the smallest window that holds the audio and the margin, then in 30 s; the others
    follow in 30 s.
    """
    needed_s = n_samples / SAMPLE_RATE + MARGIN_S
    window_s = next((w for w in sorted(windows_s) if w >= needed_s), CHUNK_LENGTH_S)
    first = [] if window_s == CHUNK_LENGTH_S else [Attempt(window_s, temperatures[0])]
    return first + [Attempt(CHUNK_LENGTH_S, temperature) for temperature in temperatures]


def judge(result: DecodingResult, text: str, text_tokens: Sequence[int], audio_s: float) -> Verdict:
    """Judge a result by its probabilities, its text (with the tokens of it) and the length of the audio."""
    s_per_token = audio_s / max(1, len(text_tokens))
    if is_silent(result, s_per_token) or not any(character.isalnum() for character in text):
        return Verdict.SILENT
    if result.avg_logprob < LOGPROB_THRESHOLD:
        return Verdict.IMPROBABLE
    if compression_ratio(text) > COMPRESSION_RATIO_THRESHOLD or has_loop(text_tokens):
        return Verdict.REPEATED
    return Verdict.GOOD


def is_silent(result: DecodingResult, s_per_token: float) -> bool:
    """True if a text is too improbable for how likely no speech is, and for how few tokens the text has."""
    sparse = s_per_token > SPARSE_S_PER_TOKEN
    no_speech_prob = result.no_speech_prob
    if no_speech_prob > VERY_DOUBTFUL_NO_SPEECH_THRESHOLD or (sparse and no_speech_prob > SPARSE_NO_SPEECH_THRESHOLD):
        return result.avg_logprob < VERY_DOUBTFUL_LOGPROB_THRESHOLD
    if sparse:
        return result.avg_logprob < SPARSE_LOGPROB_THRESHOLD
    return no_speech_prob > NO_SPEECH_THRESHOLD and result.avg_logprob < DOUBTFUL_LOGPROB_THRESHOLD


def is_believable_repetition(result: DecodingResult) -> bool:
    """True if a repeated text may be what was said: it is probable, and ended by itself."""
    return result.ended and result.avg_logprob > REPEATED_LOGPROB_THRESHOLD


def is_indistinct_speech(result: DecodingResult) -> bool:
    """True if an improbable text may be what was said: speech was heard, and the text is no mere guess."""
    heard = result.no_speech_prob < INDISTINCT_NO_SPEECH_THRESHOLD
    return heard and result.ended and result.avg_logprob > INDISTINCT_LOGPROB_THRESHOLD


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text; 0 for none."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def has_loop(tokens: Sequence[int]) -> bool:
    """True if up to `MAX_REPEATED_TOKENS` tokens come more than `MAX_REPEATS` times in a row.

    >>> has_loop([7, 8] * 9), has_loop([7, 8] * 8)
    (True, False)
    """
    for n in range(1, MAX_REPEATED_TOKENS + 1):
        # `run` counts the successive tokens that equal the one n before: n for every repeat after the first.
        run = 0
        for earlier, later in zip(tokens, tokens[n:], strict=False):
            run = run + 1 if earlier == later else 0
            if run > n * (MAX_REPEATS - 1):
                return True
    return False
