"""Which decoding to trust, which to try again, and when there was no speech.

The reference's `transcribe.py` raises the temperature while a text is repetitive or improbable, and in the end
keeps whatever came last. Two things differ here. An improbable text is tried once more and then held to be no
speech, unless the model is sure that somebody speaks: then the most probable one stays, because indistinct speech is
not silence. A higher temperature makes it less probable still, and what noise and music gave at 1.0 was invented. And
a text that merely repeats itself survives when it was probable and ended by itself: people do repeat. Where an attempt
hears no speech at all, nothing survives: noise is heard first as a sentence said over and over, and then as nothing.
"""

from __future__ import annotations

import zlib
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .decoding import Decoded

MAX_COMPRESSION_RATIO = 2.4  # a text that compresses better repeats itself
MIN_AVG_LOGPROB = -1.0
MAX_NO_SPEECH_PROB = 0.6
MAX_REPEATS = 8  # of the same few tokens in a row
MAX_REPEATED_TOKENS = 8
MAX_IMPROBABLE = 2  # attempts over the full window
MIN_AVG_LOGPROB_REPEATED = -0.5  # of a repetition that is believed
MIN_AVG_LOGPROB_INDISTINCT = -1.5  # of an improbable text that is kept, as speech was heard
MAX_NO_SPEECH_PROB_INDISTINCT = 0.2

# On silence and music a small model is fairly sure of "you" or "Thank you." (-0.4 to -1): where no-speech is likely,
# a text must be surer the fewer tokens it has for its length.
SPARSE_S_PER_TOKEN = 1.5
MAX_NO_SPEECH_PROB_SPARSE = 0.5
NO_SPEECH_PROB_NEARLY_SURE = 0.9
MIN_AVG_LOGPROB_IN_DOUBT = -0.9
MIN_AVG_LOGPROB_IN_GREAT_DOUBT = -0.3
MIN_AVG_LOGPROB_SPARSE = -0.7  # few tokens for their length are held to this even where speech seems likely


class Verdict(Enum):
    """What the guards say of one decoding."""

    GOOD = "good"
    SILENT = "silent"
    REPEATED = "repeated"
    IMPROBABLE = "improbable"


def judge(decoded: Decoded, text: str, text_tokens: Sequence[int], audio_s: float) -> Verdict:
    """Judge one decoding by its probabilities, its text (with the tokens of it) and the length of the audio."""
    doubt = _least_logprob(decoded.no_speech_prob, audio_s / max(1, len(text_tokens)))
    if decoded.avg_logprob < doubt or not any(character.isalnum() for character in text):
        return Verdict.SILENT
    if decoded.avg_logprob < MIN_AVG_LOGPROB:
        return Verdict.IMPROBABLE
    repeats = compression_ratio(text) > MAX_COMPRESSION_RATIO or loops(text_tokens)
    return Verdict.REPEATED if repeats else Verdict.GOOD


def _least_logprob(no_speech_prob: float, s_per_token: float) -> float:
    """The mean below which a text is held to be no speech."""
    sparse = s_per_token > SPARSE_S_PER_TOKEN
    if (sparse and no_speech_prob > MAX_NO_SPEECH_PROB_SPARSE) or no_speech_prob > NO_SPEECH_PROB_NEARLY_SURE:
        return MIN_AVG_LOGPROB_IN_GREAT_DOUBT
    if sparse:
        return MIN_AVG_LOGPROB_SPARSE
    return MIN_AVG_LOGPROB_IN_DOUBT if no_speech_prob > MAX_NO_SPEECH_PROB else -inf


def is_believable_repetition(decoded: Decoded) -> bool:
    """Whether a repeated text may be what was said: probable, and ended by itself."""
    return decoded.ended and decoded.avg_logprob > MIN_AVG_LOGPROB_REPEATED


def is_indistinct_speech(decoded: Decoded) -> bool:
    """Whether an improbable text may be what was said: speech was heard, and the text is no mere guess."""
    heard = decoded.no_speech_prob < MAX_NO_SPEECH_PROB_INDISTINCT
    return heard and decoded.ended and decoded.avg_logprob > MIN_AVG_LOGPROB_INDISTINCT


def compression_ratio(text: str) -> float:
    """How many times smaller zlib makes the text; 0 for none."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loops(tokens: Sequence[int]) -> bool:
    """Whether a run of up to `MAX_REPEATED_TOKENS` tokens comes more than `MAX_REPEATS` times in a row."""
    return any(_longest_run(tokens, n) > n * (MAX_REPEATS - 1) for n in range(1, MAX_REPEATED_TOKENS + 1))


def _longest_run(tokens: Sequence[int], n: int) -> int:
    """The most successive tokens that each equal the one `n` before."""
    longest = run = 0
    for earlier, later in zip(tokens, tokens[n:], strict=False):
        run = run + 1 if earlier == later else 0
        longest = max(longest, run)
    return longest
