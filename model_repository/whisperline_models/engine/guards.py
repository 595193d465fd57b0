"""When a decoding is not to be trusted, and when there was no speech (reference: `transcribe.py`)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .decoding import Decoded

MAX_COMPRESSION_RATIO = 2.4  # a text that compresses better repeats itself
MIN_AVG_LOGPROB = -1.0
MAX_NO_SPEECH_PROB = 0.6


def compression_ratio(text: str) -> float:
    """How many times smaller zlib makes the text; 0 for none."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def is_silence(decoded: Decoded) -> bool:
    """No speech, and what was decoded in spite of it is improbable."""
    return decoded.no_speech_prob > MAX_NO_SPEECH_PROB and decoded.avg_logprob < MIN_AVG_LOGPROB


def fails(decoded: Decoded, text: str) -> bool:
    """Whether to decode again: repetitive or improbable, and not silence."""
    repeats = compression_ratio(text) > MAX_COMPRESSION_RATIO
    return repeats or (decoded.avg_logprob < MIN_AVG_LOGPROB and not is_silence(decoded))
