"""The language of a session that is to be detected: remembered, because a short segment says little about it. No I/O.

The evidence for a language is the sum of what the segments so far gave it: the model's probability for it, weighted by
the segment's length. Older evidence fades, so a session may change its language, but one short word does not change it.
"""

from collections.abc import Collection, Mapping

from whisperline_contracts import StreamOptions

from whisperline_transcriber.stream.audio import SAMPLE_RATE
from whisperline_transcriber.stream.hypothesis import Transcript

HALF_LIFE_S = 30.0  # of speech: evidence that is this old counts half
LONGEST_S = 10.0  # a longer segment counts as one of this length
SURE_S = 2.0  # evidence for a language, less that for the next best, from which a segment takes it over
DETECTED_FROM_S = 5.0  # a segment from this length on is detected anew, however sure the session's language is


def language_of(options: StreamOptions, evidence: Mapping[str, float], samples: int) -> str | None:
    """Return the language in which a segment of `samples` (16 kHz) is decoded, or None if it is to be detected."""
    if options.language is not None or samples >= DETECTED_FROM_S * SAMPLE_RATE:
        return options.language
    ranked = sorted(evidence, key=evidence.__getitem__, reverse=True)
    if not ranked:
        return None
    ahead = evidence[ranked[0]] - (evidence[ranked[1]] if len(ranked) > 1 else 0.0)
    return ranked[0] if ahead >= SURE_S else None


def gather(evidence: Mapping[str, float], transcript: Transcript, samples: int) -> dict[str, float]:
    """Return the evidence after a segment of `samples` with words; unchanged if its language was not detected."""
    if not transcript.language_probs:
        return dict(evidence)
    length_s = min(samples / SAMPLE_RATE, LONGEST_S)
    kept = 0.5 ** (length_s / HALF_LIFE_S)
    gathered = {code: kept * value for code, value in evidence.items()}
    for code, probability in transcript.language_probs.items():
        gathered[code] = gathered.get(code, 0.0) + length_s * probability
    return {code: round(value, 3) for code, value in gathered.items() if value >= 0.001}


def refusal(options: StreamOptions, known: Collection[str]) -> str:
    """Return why a model that knows the languages `known` cannot serve a session; "" if it can."""
    wanted = [options.language] if options.language is not None else list(options.languages)
    missing = [code for code in wanted if code not in known]
    if missing:
        return f"language: this model has no {', '.join(missing)}, only {_listed(known)}."
    if options.language is None and set(known) == {"en"}:
        return "language: this model has English only and cannot detect another language; send en."
    return ""


def _listed(codes: Collection[str]) -> str:
    shown = sorted(codes)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
