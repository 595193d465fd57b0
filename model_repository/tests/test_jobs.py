"""The place where decoding continues after a text that stops before the end of its audio."""

from dataclasses import dataclass

import pytest
from whisperline_models.engine.audio import N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from whisperline_models.engine.decoding import DecodingResult
from whisperline_models.engine.jobs import find_cut

BEGIN = 50_363
AUDIO_S = 28
WORDS = tuple(range(1000, 1060))  # all different


@dataclass(frozen=True)
class Timestamps:
    """A stand-in for the tokenizer, with only the ids of timestamps."""

    timestamp_begin: int = BEGIN


def stamp(at_s: float) -> int:
    return BEGIN + round(at_s * 50)


@pytest.mark.parametrize(
    ("tokens", "ended", "goes_on_s", "n_kept"),
    [
        ((stamp(0), *WORDS, stamp(12)), True, None, 62),  # the text is complete
        ((stamp(0), *WORDS, stamp(12), stamp(12)), True, 12, 63),
        ((stamp(0), *WORDS, stamp(12), stamp(13), *WORDS), False, 13, 63),  # reached its maximum length within words
        ((stamp(0), *WORDS, stamp(12), stamp(13), *WORDS), True, None, 123),
        ((stamp(0), *WORDS), False, None, 61),  # no pair of timestamps says how far the text reaches
        ((stamp(0), *WORDS, stamp(0.5), stamp(0.5), *WORDS), False, None, 123),  # too close to the start
        ((stamp(0), *WORDS, stamp(27.8), stamp(27.8), *WORDS), False, None, 123),  # too close to the end
    ],
)
def test_where_a_text_that_breaks_off_goes_on(
    tokens: tuple[int, ...], ended: bool, goes_on_s: float | None, n_kept: int
) -> None:
    """A text is cut after its last two timestamps in a row, so that only the next part has the words after them."""
    result = DecodingResult(tokens, (-0.2,) * len(tokens), -0.2, 0.05, "en", ended=ended)
    cut = find_cut(result, AUDIO_S * SAMPLE_RATE, Timestamps())  # type: ignore[arg-type]
    if goes_on_s is None:
        assert cut is None
    else:
        assert cut is not None
        assert cut.n_samples == goes_on_s * 50 * N_SAMPLES_PER_TOKEN
        kept = cut.apply(result)
        assert (len(kept.tokens), len(kept.logprobs), kept.avg_logprob) == (n_kept, n_kept, -0.2)
