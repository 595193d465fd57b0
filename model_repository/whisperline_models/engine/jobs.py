"""A request on its way: its parts, their attempts, and what came of each."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .decoding import Decoded, Row, Task
from .guards import MAX_IMPROBABLE, Verdict, is_believable_repetition, is_indistinct_speech, judge
from .log_mel import HOP, SAMPLE_RATE
from .prompts import build_prompt
from .schedule import LANES, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .encoding import State
    from .requests import Request, Result
    from .slots import Window
    from .vocabulary import Vocabulary

MARGIN_S = 0.3  # that a window holds after the audio: a timestamp at its very edge may begin the text anew
FULL_WINDOW_S = 30
SAMPLES_PER_FRAME = 2 * HOP  # in a frame of the encoder, and a step of the timestamps
LEAST_STEP_S = 1.0  # what must be done before the rest is decoded for itself
LEAST_REST_S = 0.5


@dataclass(frozen=True)
class Attempt:
    """One rung of the ladder that a part climbs while its guards fail."""

    window_s: float
    temperature: float


def attempts(n_samples: int, windows_s: Sequence[float], temperatures: Sequence[float]) -> list[Attempt]:
    """The first temperature in the smallest window that holds audio and margin, then in 30 s; there the others."""
    needed_s = n_samples / SAMPLE_RATE + MARGIN_S
    window_s = next((w for w in sorted(windows_s) if w >= needed_s), FULL_WINDOW_S)
    first = [] if window_s == FULL_WINDOW_S else [Attempt(window_s, temperatures[0])]
    return first + [Attempt(FULL_WINDOW_S, temperature) for temperature in temperatures]


class Part:
    """A request's audio from `start_samples` on: the attempts that are left, and the best that came of the others."""

    def __init__(self, request: Request, windows_s: Sequence[float], start_samples: int = 0) -> None:
        self.request, self.start_samples = request, start_samples
        self.audio = request.audio[start_samples:]
        self.ladder = attempts(self.audio.size, windows_s, request.temperatures)
        self.seed = zlib.crc32(self.audio.tobytes())
        self.window: Window = None
        self.window_s = 0.0
        self.improbable = 0
        self.repeated: Decoded | None = None  # the first over the full window that may be what was said
        self.indistinct: Decoded | None = None  # the most probable of the improbable ones that may be
        self.decoded = Decoded((), (), 0.0, 1.0, request.language or "en", ended=True)
        self.settled = False
        self.silent = False

    @property
    def needs_window(self) -> bool:
        """Whether the next attempt is over a window of another length."""
        return self.ladder[0].window_s != self.window_s

    def next_row(self, vocabulary: Vocabulary) -> Row:
        """The decoding of the next attempt, over `window`."""
        attempt, request = self.ladder.pop(0), self.request
        seed = self.seed + round(attempt.temperature * 10)
        task = Task(
            self.window,
            build_prompt(request, vocabulary),
            request.language or "en",
            request.timestamps,
            attempt.temperature,
            seed,
        )
        return Row(task, vocabulary)

    def take(self, decoded: Decoded, vocabulary: Vocabulary) -> None:
        """Settle on this decoding, on an earlier one or on silence; else another attempt follows."""
        tokens = [token for token in decoded.tokens if token < vocabulary.end]
        verdict = judge(decoded, vocabulary.decode(tokens), tokens, self.audio.size / SAMPLE_RATE)
        self.decoded = decoded
        if self.window_s == FULL_WINDOW_S:
            self.improbable += verdict is Verdict.IMPROBABLE
            if verdict is Verdict.REPEATED and self.repeated is None and is_believable_repetition(decoded):
                self.repeated = decoded
        if verdict is Verdict.IMPROBABLE and is_indistinct_speech(decoded):
            self.indistinct = max(self.indistinct or decoded, decoded, key=lambda one: one.avg_logprob)
        silent = verdict is Verdict.SILENT
        gives_up = silent or not self.ladder or self.improbable >= MAX_IMPROBABLE
        if gives_up and verdict is not Verdict.GOOD:
            kept = None if silent else self.repeated or self.indistinct
            self.decoded, self.silent = kept or decoded, kept is None
        self.settled = gives_up or verdict is Verdict.GOOD

    def break_off(self, vocabulary: Vocabulary) -> int:
        """Where a text that breaks off goes on, in samples; 0 when it does not.

        A text breaks off between two timestamps at its end; one that was cut for its length, at the last two that
        follow each other, and what stands behind them is left to the next part. The reference seeks there.
        """
        tokens, begin = self.decoded.tokens, vocabulary.timestamp_begin
        pairs = (at for at in range(len(tokens) - 1, 0, -1) if min(tokens[at - 1 : at + 1]) >= begin)
        last = next(pairs, 0)
        if self.silent or not last or (self.decoded.ended and last < len(tokens) - 1):
            return 0
        done = (tokens[last] - begin) * SAMPLES_PER_FRAME
        left = self.audio.size - done
        if done < LEAST_STEP_S * SAMPLE_RATE or left < LEAST_REST_S * SAMPLE_RATE:
            return 0
        logprobs = self.decoded.logprobs[: last + 1]
        self.decoded = replace(self.decoded, tokens=tokens[: last + 1], logprobs=logprobs)
        return self.start_samples + done


class Job:
    """A request under way; `finish` is called once, with its result or with what went wrong."""

    def __init__(
        self,
        request: Request,
        windows_s: Sequence[float],
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool],
        arrived_s: float,
    ) -> None:
        self.request, self.finish, self.is_cancelled, self.arrived_s = request, finish, is_cancelled, arrived_s
        self.rank = LANES.index(request.lane)
        self.stage = Stage.ENCODE
        self.parts = [Part(request, windows_s)]
        self.row: Row | None = None
        self.state: State = None  # of the window that is being encoded, behind so many pieces:
        self.pieces_done = 0
        self._windows_s = windows_s

    @property
    def part(self) -> Part:
        """The newest part."""
        return self.parts[-1]

    @property
    def window_s(self) -> float:
        """The length of the window of the next attempt."""
        return self.part.ladder[0].window_s

    @property
    def encoding(self) -> tuple[float, int]:
        """What must be the same of windows that are encoded together."""
        return self.window_s, self.pieces_done

    @property
    def is_new(self) -> bool:
        """Whether nothing was done yet."""
        return len(self.parts) == 1 and not self.part.window_s and not self.pieces_done

    @property
    def heard(self) -> list[Part]:
        """The parts with speech."""
        return [part for part in self.parts if not part.silent]

    def take_state(self, state: State) -> None:
        """Go on to encode, from what one more piece has given."""
        self.state, self.pieces_done = state, self.pieces_done + 1

    def take_window(self, window: Window, vocabulary: Vocabulary) -> None:
        """Go on to decode over a window."""
        self.part.window, self.part.window_s = window, self.window_s
        self.state, self.pieces_done = None, 0
        self._decode(vocabulary)

    def take_decoded(self, decoded: Decoded, vocabulary: Vocabulary) -> bool:
        """Judge what the row gave and go on to what is next; True when nothing is left to decode or to align."""
        self.part.take(decoded, vocabulary)
        if not self.part.settled:
            if self.part.needs_window:
                self.stage = Stage.ENCODE
            else:
                self._decode(vocabulary)
            return False
        if rest := self.part.break_off(vocabulary):
            heard = replace(self.part.request, language=decoded.language)  # one language a request
            self.parts.append(Part(heard, self._windows_s, rest))
            self.stage = Stage.ENCODE
            return False
        self.stage = Stage.ALIGN
        return not (self.request.words and self.heard)

    def _decode(self, vocabulary: Vocabulary) -> None:
        self.row = self.part.next_row(vocabulary)
        self.stage = Stage.DECODE
