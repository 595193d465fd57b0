"""Decide, at a pause, how long a silence ends the turn: less if the speaker seems to be done. No I/O.

The text of the segment, decoded at the pause, answers best. Whisper ends the text of a finished sentence with a mark,
and that of "I would like to" with none, or with an ellipsis. If it sets a full stop in mid-sentence, it is less sure of
it. So a sure mark ends the turn soon, a doubtful one later, and a text without a mark waits as long as is allowed. A
speaker who went on soon after a turn had been ended gets more time at the next pauses.

Measured at the pauses of natural English speech (`bench/turns.py`), these tell less or nothing: the probability of
<|endoftext|>, the average log probability, the length of the segment, a last word such as "the" or "and", and the turn
model Smart Turn v3.2, which ends no fewer sentences too early at the same delay and costs 50 ms of a core a pause.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whisperline_contracts import Said

from whisperline_transcriber.stream.audio import SAMPLES_PER_MS
from whisperline_transcriber.stream.hypothesis import Transcript

_QUOTES = "\"'”’»」』)]"  # noqa: RUF001 - what may follow the mark at the end of a sentence
_MARKS = (".", "?", "!", "。", "．", "？", "！", "؟", "۔", "।", "።", "։")  # noqa: RUF001 - of Whisper's languages
_ELLIPSES = ("..", "…", "。。", "‥")

N_FINALS = 3  # the latest finals, which tell what the speaker and the model are used to


@dataclass(frozen=True)
class TurnRule:
    """The silence that ends a turn, in ms, as a function of the text before it and of the latest finals.

    It is `sure_ms` behind a mark with probability 1, longer by `doubt_ms` for each nat of its negative log probability
    and by `habit_ms` for each of the latest finals after which the speaker went on within `went_on_ms`.
    """

    sure_ms: int = 400
    doubt_ms: int = 800
    habit_ms: int = 200
    went_on_ms: int = 1_000  # between the audio of two segments; the silence is longer by post-roll and pre-roll
    longest_ms: int = 1_500  # also behind a text without a mark
    unmarked_ms: int = 1_000  # behind a text without a mark, where the model does not set any


def closing_ms(transcript: Transcript, start: int = 0, said: Sequence[Said] = (), rule: TurnRule = TurnRule()) -> int:
    """Return the silence that closes a segment that began at sample `start` (16 kHz), in ms.

    `transcript` is of the segment so far, `said` are the session's latest finals. They also show whether the model sets
    marks at all: in some languages, such as Thai, it does not.
    """
    latest = said[-N_FINALS:]
    if ends_sentence(transcript.text):
        starts = [*(final.start for final in latest), start]
        gaps = [after - final.end for final, after in zip(latest, starts[1:], strict=True)]
        n_went_on = sum(gap < rule.went_on_ms * SAMPLES_PER_MS for gap in gaps)
        wait_ms = rule.sure_ms + rule.habit_ms * n_went_on - rule.doubt_ms * transcript.last_logprob
    elif len(latest) == N_FINALS and not any(ends_sentence(final.text) for final in latest):
        wait_ms = rule.unmarked_ms
    else:
        wait_ms = rule.longest_ms
    return min(rule.longest_ms, round(wait_ms))


def ends_sentence(text: str) -> bool:
    """Return True if the text ends with the mark of a finished sentence."""
    bare = text.rstrip().rstrip(_QUOTES).rstrip()
    return bare.endswith(_MARKS) and not bare.endswith(_ELLIPSES)
