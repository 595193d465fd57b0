"""What a request settles on after its attempts, and where a text that broke off goes on."""

from dataclasses import dataclass

import numpy as np
import pytest
from whisperline_models.engine.decoding import Decoded
from whisperline_models.engine.jobs import FULL_WINDOW_S, SAMPLES_PER_FRAME, Part
from whisperline_models.engine.requests import Request

BEGIN = 50_363
AUDIO_S = 28
WORDS = tuple(range(1000, 1060))  # no two alike
LOOP = (1000, 1001) * 20


@dataclass(frozen=True)
class Numbers:
    """A vocabulary whose text is the numbers of its tokens."""

    end: int = 50_256
    timestamp_begin: int = BEGIN

    def decode(self, tokens: tuple[int, ...]) -> str:
        return " ".join(str(token * 7919 % 99_991) for token in tokens)


def decoded(
    tokens: tuple[int, ...], avg_logprob: float = -0.2, no_speech: float = 0.05, *, ended: bool = True
) -> Decoded:
    return Decoded(tokens, (avg_logprob,) * len(tokens), avg_logprob, no_speech, "en", ended)


def settle(*attempts: Decoded, temperatures: tuple[float, ...] = (0.0, 0.2, 0.4)) -> Part:
    """A part over the full window after these attempts."""
    request = Request(np.zeros(16_000 * AUDIO_S, np.float32), timestamps=True, temperatures=temperatures)
    part = Part(request, (FULL_WINDOW_S,))
    part.window_s = FULL_WINDOW_S
    for attempt in attempts:
        assert not part.settled
        part.ladder.pop(0)
        part.take(attempt, Numbers())  # type: ignore[arg-type]
    return part


def stamp(at_s: float) -> int:
    return BEGIN + round(at_s * 50)


GOOD, LOOPS = decoded(WORDS), decoded(LOOP)
SILENT = decoded(WORDS[:2], avg_logprob=-2.0, no_speech=0.95)
IMPROBABLE = decoded(WORDS, avg_logprob=-1.2)


@pytest.mark.parametrize(
    ("attempts", "kept"),
    [
        ([GOOD], GOOD),
        ([LOOPS, GOOD], GOOD),
        ([LOOPS, LOOPS, LOOPS], LOOPS),
        ([LOOPS, SILENT], None),  # so it goes with noise
        ([IMPROBABLE, IMPROBABLE], IMPROBABLE),
        ([IMPROBABLE, SILENT], None),
        ([SILENT], None),
        ([decoded(LOOP, ended=False)] * 3, None),
    ],
)
def test_the_attempt_that_is_kept(attempts: list[Decoded], kept: Decoded | None) -> None:
    """The first good one; else silence where one heard it; else a believed repetition; else the likeliest."""
    part = settle(*attempts)
    assert part.settled
    assert part.silent == (kept is None)
    assert kept is None or part.decoded == kept


@pytest.mark.parametrize(
    ("tokens", "ended", "goes_on_s", "n_kept"),
    [
        ((stamp(0), *WORDS, stamp(12)), True, 0, 62),  # the text is over
        ((stamp(0), *WORDS, stamp(12), stamp(12)), True, 12, 63),
        ((stamp(0), *WORDS, stamp(12), stamp(13), *WORDS), False, 13, 63),  # cut for its length, in words
        ((stamp(0), *WORDS, stamp(12), stamp(13), *WORDS), True, 0, 123),
        ((stamp(0), *WORDS), False, 0, 61),  # nothing tells how far it came
        ((stamp(0), *WORDS, stamp(0.5), stamp(0.5), *WORDS), False, 0, 123),  # too little is done
        ((stamp(0), *WORDS, stamp(27.8), stamp(27.8), *WORDS), False, 0, 123),  # too little is left
    ],
)
def test_where_a_text_that_breaks_off_goes_on(
    tokens: tuple[int, ...], ended: bool, goes_on_s: float, n_kept: int
) -> None:
    """At the last two timestamps in a row: the words behind them are said again by the next part, and by it alone."""
    part = settle(decoded(tokens, ended=ended))
    rest = part.break_off(Numbers())  # type: ignore[arg-type]
    assert rest == goes_on_s * 50 * SAMPLES_PER_FRAME
    assert (len(part.decoded.tokens), len(part.decoded.logprobs)) == (n_kept, n_kept)
