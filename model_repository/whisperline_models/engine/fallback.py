"""Temperature fallback: decide whether to keep a decoded text, decode again, or report silence.

Source: `decode_with_fallback` of openai-whisper's `transcribe.py`, which raises the temperature while a text repeats
itself or is improbable, and keeps the last attempt if none is good. Four things differ here.

- The first attempt uses prompt, prefix and beams, if the request has them. If its result is not to be trusted
  (`is_settled`), decoding begins anew without them.
- The first attempt uses a window cut to the audio, which costs less; the others use 30 s.
- An improbable text is decoded once more over 30 s. If it is still improbable, the audio counts as silent, unless the
  model is sure that somebody speaks: then the most probable text is kept, because indistinct speech is not silence.
  Higher temperatures are not tried: they give less probable texts, and for noise and music invented ones.
- A text that repeats itself is kept if it is probable and ended by itself, because people do repeat themselves. But if
  any attempt is judged silent, the audio is silent: on noise, a model tends to repeat one sentence in the first
  attempt and to find no speech in a later one.
"""

from __future__ import annotations

import string
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

# A sequence of up to MAX_REPEATED_TOKENS tokens that comes more than MAX_REPEATS times in a row is a loop, even if the
# text around it keeps the compression ratio low.
MAX_REPEATS = 8
MAX_REPEATED_TOKENS = 8
MAX_REPEATED_WORDS = 8  # that a text behind a prompt or a prefix may not say twice in a row

MAX_IMPROBABLE = 2  # stop after this many improbable results over 30 s
REPEATED_LOGPROB_THRESHOLD = -0.5  # a repetition with a higher average is kept
INDISTINCT_LOGPROB_THRESHOLD = -1.5  # an improbable text with a higher average is kept if there is speech
INDISTINCT_NO_SPEECH_THRESHOLD = 0.2  # there is speech if the probability of no speech is lower

# On silence and music a small model is fairly sure of "you" or "Thank you." (averages of -0.4 to -1). So the fewer
# tokens a text has for its length, and the higher the probability of no speech, the more probable the text must be.
SPARSE_S_PER_TOKEN = 1.5  # a text with more seconds of audio per token is sparse
SPARSE_NO_SPEECH_THRESHOLD = 0.5  # a sparse text above it must pass VERY_DOUBTFUL_LOGPROB_THRESHOLD
CONTEXT_S_PER_TOKEN = 0.8  # a text behind a prompt or a prefix with more seconds of audio per token may lack words
SPARSE_LOGPROB_THRESHOLD = -0.7  # every other sparse text must pass this one
DOUBTFUL_LOGPROB_THRESHOLD = -0.9  # for texts that are not sparse, above NO_SPEECH_THRESHOLD
# Any text above it must pass VERY_DOUBTFUL_LOGPROB_THRESHOLD. Digital silence has 0.88 to 0.95, by processor.
VERY_DOUBTFUL_NO_SPEECH_THRESHOLD = 0.85
VERY_DOUBTFUL_LOGPROB_THRESHOLD = -0.3

# Beam search finds more probable texts, on noise and music, too, which the thresholds would let pass. If a text of beam
# search has a lower average and a higher probability of no speech than these, the greedy text is judged instead.
BEAM_LOGPROB_THRESHOLD = -0.6
BEAM_NO_SPEECH_THRESHOLD = 0.3

# A window extends at least this far past the audio: with a timestamp at its very edge, the decoder may start over.
MARGIN_S = 0.3


class Verdict(Enum):
    """The judgement on one result of decoding."""

    GOOD = "good"
    SILENT = "silent"
    REPEATED = "repeated"
    IMPROBABLE = "improbable"


@dataclass(frozen=True)
class Attempt:
    """One try at decoding: the length of its window and its temperature."""

    window_s: float
    temperature: float


@dataclass(frozen=True)
class Settled:
    """The result that is kept; `silent` if the audio counts as having no speech."""

    result: DecodingResult
    silent: bool


class Fallback:
    """The attempts that are left for a stretch of audio, and the best results so far.

    Call `next_attempt`, decode, and pass the result to `take`, until it returns a `Settled`.
    """

    def __init__(self, n_samples: int, windows_s: Sequence[float], temperatures: Sequence[float]) -> None:
        self._attempts = plan_attempts(n_samples, windows_s, temperatures)
        self._n_improbable = 0
        self._repeated: DecodingResult | None = None  # the first believable repetition over 30 s
        self._indistinct: DecodingResult | None = None  # the most probable text of indistinct speech

    def next_attempt(self) -> Attempt:
        """Remove the next attempt from the plan and return it."""
        return self._attempts.pop(0)

    def take(self, attempt: Attempt, result: DecodingResult, verdict: Verdict) -> Settled | None:
        """Settle on this result, an earlier one or silence. Return None if another attempt must be made."""
        if verdict is Verdict.GOOD:
            return Settled(result, silent=False)
        if verdict is Verdict.SILENT:
            return Settled(result, silent=True)
        if attempt.window_s == CHUNK_LENGTH_S:  # a text may fail merely because its window is shorter than that
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

    The first temperature is tried in the smallest window that holds the audio and the margin, then in 30 s. The other
    temperatures are tried in 30 s only.
    """
    needed_s = n_samples / SAMPLE_RATE + MARGIN_S
    window_s = next((w for w in sorted(windows_s) if w >= needed_s), CHUNK_LENGTH_S)
    first = [] if window_s == CHUNK_LENGTH_S else [Attempt(window_s, temperatures[0])]
    return first + [Attempt(CHUNK_LENGTH_S, temperature) for temperature in temperatures]


def judge(
    result: DecodingResult, text: str, text_tokens: Sequence[int], audio_s: float, *, has_context: bool = False
) -> Verdict:
    """Judge a result by its probabilities, its text (as a string and as tokens) and the length of the audio.

    With `has_context`, behind a prompt or a prefix, a small model says things twice or ends too early more often, so a
    text must be fuller, and may repeat nothing.
    """
    s_per_token = audio_s / max(1, len(text_tokens))
    if has_context and (s_per_token > CONTEXT_S_PER_TOKEN or says_twice(text)):
        return Verdict.REPEATED if says_twice(text) else Verdict.SILENT
    if is_silent(result, s_per_token) or not any(character.isalnum() for character in text):
        return Verdict.SILENT
    if result.avg_logprob < LOGPROB_THRESHOLD:
        return Verdict.IMPROBABLE
    if compression_ratio(text) > COMPRESSION_RATIO_THRESHOLD or has_loop(text_tokens):
        return Verdict.REPEATED
    return Verdict.GOOD


def is_silent(result: DecodingResult, s_per_token: float) -> bool:
    """Return True if a text is too improbable, given its probability of no speech and its seconds per token."""
    sparse = s_per_token > SPARSE_S_PER_TOKEN
    no_speech_prob = result.no_speech_prob
    if no_speech_prob > VERY_DOUBTFUL_NO_SPEECH_THRESHOLD or (sparse and no_speech_prob > SPARSE_NO_SPEECH_THRESHOLD):
        return result.avg_logprob < VERY_DOUBTFUL_LOGPROB_THRESHOLD
    if sparse:
        return result.avg_logprob < SPARSE_LOGPROB_THRESHOLD
    return no_speech_prob > NO_SPEECH_THRESHOLD and result.avg_logprob < DOUBTFUL_LOGPROB_THRESHOLD


def is_settled(result: DecodingResult, verdict: Verdict, *, has_context: bool, has_beams: bool) -> bool:
    """Return True if a result counts; otherwise decode again, greedily and without prompt, hotwords and prefix.

    Behind a prefix, the decoder often ends the text at once, and sometimes with a prompt, too. So silence is believed
    only if it is found without them.
    """
    if verdict is Verdict.GOOD:
        doubtful = result.avg_logprob < BEAM_LOGPROB_THRESHOLD and result.no_speech_prob > BEAM_NO_SPEECH_THRESHOLD
        return not (has_beams and doubtful)
    return not has_context and (verdict is Verdict.SILENT or not has_beams)


def is_believable_repetition(result: DecodingResult) -> bool:
    """Return True if a speaker may really have repeated themselves: the text is probable and ended by itself."""
    return result.ended and result.avg_logprob > REPEATED_LOGPROB_THRESHOLD


def is_indistinct_speech(result: DecodingResult) -> bool:
    """Return True if an improbable text is worth keeping: the audio has speech, and the text is more than a guess."""
    heard = result.no_speech_prob < INDISTINCT_NO_SPEECH_THRESHOLD
    return heard and result.ended and result.avg_logprob > INDISTINCT_LOGPROB_THRESHOLD


def compression_ratio(text: str) -> float:
    """Return the ratio of the text's size to its size after zlib; 0 for empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def says_twice(text: str) -> bool:
    """Return True if a sequence of up to `MAX_REPEATED_WORDS` words comes twice in a row.

    >>> says_twice("On the notes, on the notes."), says_twice("on and on")
    (True, False)
    """
    words = [word.strip(string.punctuation).casefold() for word in text.split()]
    return any(
        words[at : at + n] == words[at + n : at + 2 * n]
        for n in range(1, MAX_REPEATED_WORDS + 1)
        for at in range(len(words) - 2 * n + 1)
    )


def has_loop(tokens: Sequence[int]) -> bool:
    """Return True if a sequence of up to `MAX_REPEATED_TOKENS` tokens comes more than `MAX_REPEATS` times in a row.

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
