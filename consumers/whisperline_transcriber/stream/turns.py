"""Decide, at a pause, how long a silence ends the turn: less if the speaker seems to be done. No I/O.

The text of the segment, decoded at the pause, answers best. Whisper ends the text of a finished sentence with a mark,
and that of "I would like to" with none, or with an ellipsis. If it sets a full stop in mid-sentence, it is less sure of
it. So a sure mark ends the turn soon, a doubtful one later, and a text without a mark waits as long as is allowed.

Measured at the pauses of natural English speech (`bench/turns.py`), these tell less or nothing: the probability of
<|endoftext|>, the average log probability, the length of the segment, a last word such as "the" or "and", and the turn
model Smart Turn v3.2, which ends no fewer sentences too early at the same delay and costs 50 ms of a core a pause.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whisperline_transcriber.stream.hypothesis import Transcript

_QUOTES = "\"'”’»」』)]"  # noqa: RUF001 - what may follow the mark at the end of a sentence
_MARKS = (".", "?", "!", "。", "．", "？", "！", "؟", "۔", "।", "።", "։")  # noqa: RUF001 - of Whisper's languages
_ELLIPSES = ("..", "…", "。。", "‥")

MIN_FINALS = 3  # so many finals without a mark show that the model does not set any


@dataclass(frozen=True)
class TurnRule:
    """The silence that ends a turn, in ms, as a function of the text before it.

    It is `sure_ms` behind a mark with probability 1 and longer by `doubt_ms` for each nat of its negative log
    probability, up to `longest_ms`.
    """

    sure_ms: int = 500
    doubt_ms: int = 800
    longest_ms: int = 1_500  # also behind a text without a mark
    unmarked_ms: int = 1_000  # behind a text without a mark, where the model does not set any


def closing_ms(transcript: Transcript, finals: Sequence[str] = (), rule: TurnRule = TurnRule()) -> int:
    """Return the silence that closes the segment of which `transcript` is the text so far, in ms.

    `finals` are the texts of the session's latest finals. They show whether the model sets marks at all: in some
    languages, such as Thai, it does not.
    """
    if ends_sentence(transcript.text):
        return min(rule.longest_ms, round(rule.sure_ms - rule.doubt_ms * transcript.last_logprob))
    spoken = [text for text in finals if text.strip()]
    if len(spoken) >= MIN_FINALS and not any(map(ends_sentence, spoken)):
        return min(rule.longest_ms, rule.unmarked_ms)
    return rule.longest_ms


def ends_sentence(text: str) -> bool:
    """Return True if the text ends with the mark of a finished sentence."""
    bare = text.rstrip().rstrip(_QUOTES).rstrip()
    return bare.endswith(_MARKS) and not bare.endswith(_ELLIPSES)
