"""The state of one request under way, and of the parts that it is decoded in."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .audio import N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from .decoding import DecodingTask
from .fallback import Fallback
from .prompts import build_prompt
from .requests import LANES
from .schedule import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .decoding import DecodingResult, Row
    from .encoder import State
    from .fallback import Attempt
    from .requests import Request
    from .result import Result, Word
    from .slots import Window
    from .timeline import Timeline
    from .tokenizer import Tokenizer

LEAST_STEP_S = 1.0  # a part that covers less than this is not cut: the next one would hear nearly the same
LEAST_REST_S = 0.5  # nor one that leaves less than this


@dataclass
class Part:
    """A stretch of a request's audio that was decoded in one window, from `seek` samples on."""

    seek: int
    n_samples: int  # from `seek` to the end of the audio; the text may end before
    window: Window
    window_s: float
    result: DecodingResult
    silent: bool
    words: tuple[Word, ...] = ()


class Job:
    """A request under way. `Stages` moves it from stage to stage; the scheduler reads `rank`, `stage` and `batch_key`.

    What is valid in which stage: in ENCODE, the encoder has done `pieces_done` pieces for the window of `attempt`, and
    `state` is what the last of them gave. In DECODE, `row` decodes `window`. In ALIGN and DONE, `parts` has everything.
    """

    def __init__(
        self,
        request: Request,
        windows_s: Sequence[float],
        *,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool],
        arrived_s: float,
        timeline: Timeline | None = None,
    ) -> None:
        self.request, self.finish, self.is_cancelled, self.arrived_s = request, finish, is_cancelled, arrived_s
        self.timeline = timeline
        self.rank = LANES.index(request.lane)
        self.started = False  # True from the first unit of work on
        self.parts: list[Part] = []
        self._windows_s = windows_s
        self.begin_part(seek=0)

    def begin_part(self, seek: int) -> None:
        """Go on to decode the audio from `seek` samples on, with attempts of its own."""
        self.seek = seek
        self.audio = self.request.audio[seek:]
        self.fallback = Fallback(self.audio.size, self._windows_s, self.request.temperatures)
        self.begin_encoding(self.fallback.next_attempt())

    def begin_encoding(self, attempt: Attempt) -> None:
        """Go on to encode the window of an attempt."""
        self.stage = Stage.ENCODE
        self.attempt = attempt
        self.pieces_done = 0
        self.state: State = None
        self.window: Window = None
        self.row: Row | None = None

    @property
    def batch_key(self) -> tuple[float, int]:
        """Windows of one length that need the same piece of the encoder are encoded together."""
        return self.attempt.window_s, self.pieces_done

    @property
    def parts_with_speech(self) -> list[Part]:
        """The parts that are not held to be silent."""
        return [part for part in self.parts if not part.silent]

    def decoding_task(self, tokenizer: Tokenizer) -> DecodingTask:
        """Return what the attempt decodes. Its seed comes from the audio, so that a retry draws the same tokens."""
        request, temperature = self.request, self.attempt.temperature
        seed = zlib.crc32(self.audio.tobytes()) + round(temperature * 10) if temperature else 0
        prompt = build_prompt(request, tokenizer)
        return DecodingTask(self.window, prompt, request.language or "en", request.timestamps, temperature, seed)


@dataclass(frozen=True)
class Cut:
    """Where a text breaks off: its first `n_tokens` are of the first `n_samples`, and the rest is decoded anew."""

    n_tokens: int
    n_samples: int

    def apply(self, result: DecodingResult) -> DecodingResult:
        """Return the result without the tokens behind the cut; its average stays that of the whole text."""
        return replace(result, tokens=result.tokens[: self.n_tokens], logprobs=result.logprobs[: self.n_tokens])


def find_cut(result: DecodingResult, n_samples: int, tokenizer: Tokenizer) -> Cut | None:
    """Return where to cut a text that breaks off before the end of its audio; None if it does not.

    As in the reference, which moves its `seek` there: two timestamps in a row end one stretch of text and begin the
    next. A text that ends with such a pair breaks off there. One that was cut for its length breaks off at its last
    pair, and what stands behind that is decoded again.
    """
    tokens, begin = result.tokens, tokenizer.timestamp_begin
    for last in range(len(tokens) - 1, 0, -1):
        if tokens[last - 1] >= begin and tokens[last] >= begin:
            break
    else:
        return None
    if result.ended and last < len(tokens) - 1:
        return None
    n_done = (tokens[last] - begin) * N_SAMPLES_PER_TOKEN
    if n_done < LEAST_STEP_S * SAMPLE_RATE or n_samples - n_done < LEAST_REST_S * SAMPLE_RATE:
        return None
    return Cut(last + 1, n_done)
