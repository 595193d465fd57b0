"""The state of one request in progress, and of the parts in which its audio is decoded."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .audio import N_SAMPLES_PER_TOKEN, SAMPLE_RATE
from .decoding import DecodingTask
from .fallback import Fallback
from .prompts import build_prompt
from .requests import LANES, SAMPLES_PER_MS
from .schedule import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .decoding import DecodingResult, Row
    from .encoder import State
    from .fallback import Attempt
    from .requests import Request
    from .result import Part, Result
    from .slots import Window
    from .timeline import Timeline
    from .tokenizer import Tokenizer

# No cut is made closer than this to the start of a part (the next part would have nearly the same audio) or to its end.
LEAST_STEP_S = 1.0
LEAST_REST_S = 0.5


class Job:
    """A request in progress. `Stages` moves it between stages; the scheduler reads `rank`, `stage` and `batch_key`.

    Some fields are valid only in certain stages. In ENCODE, the encoder has run `pieces_done` pieces for the window of
    `attempt`, and `state` is the output of the last one. In DECODE, `row` decodes `window`. In ALIGN and DONE, `parts`
    is complete.
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
        self.started = False  # True once the first unit of work begins
        self.parts: list[Part] = []
        self._windows_s = windows_s
        self.begin_part(seek=0)

    def begin_part(self, seek: int) -> None:
        """Begin a new part with the audio after the first `seek` samples; it has its own attempts."""
        self.seek = seek
        self.audio = self.request.audio[seek:]
        self._begin_attempts()
        self.begin_encoding(self.attempt)

    def _begin_attempts(self) -> None:
        self.fallback = Fallback(self.audio.size, self._windows_s, self.request.temperatures)
        self.attempt = self.fallback.next_attempt()

    def begin_plainly(self, language: str) -> None:
        """Begin the part anew, greedily and without prompt, hotwords and prefix, to which its failure may be due.

        The text of a prefix is decided, so only the audio after it is decoded again, in the `language` of the whole.
        Without a prefix, the window stays as it is, and the job stays in stage DECODE.
        """
        n_decided = self.prefix_samples
        self.request = replace(self.request, prompt="", hotwords="", prefix="", prefix_ms=0, beam_size=1)
        if n_decided:
            self.request = replace(self.request, language=language)
            self.begin_part(self.seek + n_decided)
        else:
            self._begin_attempts()

    def begin_encoding(self, attempt: Attempt) -> None:
        """Enter stage ENCODE with the window of an attempt."""
        self.stage = Stage.ENCODE
        self.attempt = attempt
        self.pieces_done = 0
        self.state: State = None
        self.window: Window = None
        self.row: Row | None = None

    @property
    def batch_key(self) -> tuple[float, int]:
        """The window's length and the encoder's next piece. Windows with equal keys can be encoded together."""
        return self.attempt.window_s, self.pieces_done

    @property
    def has_context(self) -> bool:
        """True if the decoder's prompt holds any text."""
        return bool(self.request.prompt or self.request.hotwords or self.request.prefix)

    @property
    def prefix_samples(self) -> int:
        """The length of the audio in this part whose text is the prefix."""
        return self.request.prefix_ms * SAMPLES_PER_MS

    @property
    def parts_with_speech(self) -> list[Part]:
        """The parts that were not judged silent."""
        return [part for part in self.parts if not part.silent]

    def decoding_task(self, tokenizer: Tokenizer) -> DecodingTask:
        """Return the decoding task of the current attempt.

        Its seed is derived from the audio, so that a client that sends a request again gets the same tokens.
        """
        request, temperature = self.request, self.attempt.temperature
        seed = zlib.crc32(self.audio.tobytes()) + round(temperature * 10) if temperature else 0
        prompt = build_prompt(request, tokenizer)
        return DecodingTask(
            self.window,
            prompt,
            language=request.language or "en",
            languages=request.languages,
            timestamps=request.timestamps,
            temperature=temperature,
            seed=seed,
            beam_size=1 if temperature else request.beam_size or 1,
            patience=request.patience,
            length_penalty=request.length_penalty,
        )


@dataclass(frozen=True)
class Cut:
    """A place to cut a text: its first `n_tokens` cover the first `n_samples`; later audio is decoded again."""

    n_tokens: int
    n_samples: int

    def apply(self, result: DecodingResult) -> DecodingResult:
        """Return the result without the tokens after the cut; `avg_logprob` remains that of the whole text."""
        return replace(result, tokens=result.tokens[: self.n_tokens], logprobs=result.logprobs[: self.n_tokens])


def find_cut(result: DecodingResult, n_samples: int, tokenizer: Tokenizer) -> Cut | None:
    """Return the place to cut a text that stops before the end of its audio; None if it covers all of it.

    Two timestamps in a row end one segment and begin the next. A text that ends with such a pair is cut there: the
    model announced another segment and did not write it. A text that reached its maximum length is cut at its last
    pair, because the segment after that is incomplete. The reference moves `seek` to the same places.
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
