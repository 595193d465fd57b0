"""Measure when turns are ended too early, and how long their ends take, by the rule and its constants.

    make bench-turns

At every pause of the natural English recordings the text so far is decoded as a live session does it, with segments
that end after 1.5 s of silence. Then each rule says after how much silence it would have ended the turn.
`turn_pauses.json` has the true answer for each pause, [end of speech, next speech, kind] in ms: "mid-sentence" where
the sentence goes on, "sentence" where the speaker goes on with another sentence, and "turn" where the turn is over.
Kinds come from the turns of the two-channel calls, elsewhere from the punctuation that `base` gives the whole file. To
end a turn in mid-sentence is a false end. A second table counts the ends of whole live sessions, whose segments are
shorter than those of the first one where a turn has ended. Both go to bench/results/turns.md.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from clips import Pcm
from in_process import InProcess, Task
from live_text import live_text
from peer import MODEL
from recordings import Recording, read_recordings
from report import THREADS, heading, table, write
from whisperline_contracts import Final, Said, StreamOptions
from whisperline_transcriber.stream.audio import SAMPLES_PER_MS, milliseconds
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.turns import TurnRule, closing_ms

LABELS = Path(__file__).with_name("turn_pauses.json")
LONGEST_MS = 1_500  # of silence within a segment, while the pauses are collected
SILENCE_S = 2.0  # behind a recording, which often stops with its speaker
TOLERANCE_MS = 250  # between the end of speech here and that of the labels
LATE_MS = 1_000  # an end of turn that takes longer is late

RULE = TurnRule()
PLAIN = replace(RULE, habit_ms=0)
FIXED_MS = (300, 400, 500, 600, 700, 800, 1_000, 1_200, 1_500)
SURE_MS = (300, 400, 500, 600, 700)
RULES: dict[str, TurnRule] = {
    **{f"a mark: {ms} ms": replace(PLAIN, sure_ms=ms, doubt_ms=0) for ms in (400, 500, 600, 700)},
    **{
        f"a mark: {ms} ms + {doubt_ms} a nat": replace(PLAIN, sure_ms=ms, doubt_ms=doubt_ms)
        for doubt_ms in (800, 1_000, 1_200)
        for ms in (300, 400, 500)
    },
    **{f"the default with {ms} ms": replace(RULE, sure_ms=ms) for ms in (300, 500)},
    **{f"the default, at most {ms} ms": replace(RULE, longest_ms=ms) for ms in (1_000, 1_200, 2_000)},
    "**the default**": RULE,
}

LIVE = {
    "default": StreamOptions(),
    **{f"endpointing={ms}": StreamOptions(endpointing_ms=ms) for ms in (300, 500)},
}


@dataclass(frozen=True)
class Pause:
    """A pause, the text before it, and what it was. Times in ms; `length_ms` is None if nothing follows."""

    start_ms: int  # of the segment
    speech_end_ms: int
    length_ms: int | None
    kind: str
    transcript: Transcript


@dataclass(frozen=True)
class WithSilence(Recording):
    """A recording that is followed by digital silence."""

    def read(self) -> tuple[Pcm, int]:
        """Return the samples and their rate."""
        samples, rate = super().read()
        return np.concatenate([samples, np.zeros(round(SILENCE_S * rate), np.int16)]), rate


def main() -> None:
    """Decode at all pauses, judge the rules, and write the table."""
    labels: dict[str, list[tuple[int, int | None, str]]] = json.loads(LABELS.read_text())
    recordings = [WithSilence(**vars(recording)) for recording in read_recordings() if recording.id in labels]
    engine = InProcess(MODEL, THREADS)
    heard = engine.run(_pauses(recording, labels[recording.id]) for recording in recordings)
    speech_min = sum(recording.duration_s for recording in recordings) / 60
    n_by_kind = Counter(pause.kind for pauses in heard for pause in pauses)
    rows = [_row(f"fixed {ms} ms", _fixed(heard, ms), n_by_kind, speech_min) for ms in FIXED_MS]
    rows += [_row(name, _ruled(heard, rule), n_by_kind, speech_min) for name, rule in RULES.items()]
    n_false, n_between, n_turns = (n_by_kind[kind] for kind in ("mid-sentence", "sentence", "turn"))
    notes = (
        f"{len(recordings)} channels of natural English speech, {speech_min:.0f} min, {MODEL}; {n_false} pauses in"
        f" mid-sentence, {n_between} between sentences, {n_turns} at the end of a turn, each of at least"
        f" {Segmentation().post_roll_ms} ms. A false end is a turn that was ended in mid-sentence. A nat is the unit of"
        " the negative log probability of the mark at the end of the text.",
    )
    columns = (
        "a turn ends after",
        "false ends",
        "of 100 pauses in mid-sentence",
        "a minute",
        "ends between sentences",
        "silence at a turn's end, p50",
        "p95",
        "mean",
        f"over {LATE_MS} ms, %",
    )
    lives = []
    for name, options in LIVE.items():
        finals = engine.run(live_text(recording, options) for recording in recordings)
        ended = Counter(
            kind
            for recording, told in zip(recordings, finals, strict=True)
            for kind in _kinds(labels[recording.id], told, recording.read()[1])
        )
        n_finals = sum(map(len, finals))
        lives.append(
            [name, n_finals, ended["mid-sentence"], f"{ended['mid-sentence'] / speech_min:.2f}", ended["sentence"]]
        )
    lines = [*heading("When a turn ends", "make bench-turns", *notes), *table(columns, rows)]
    write("turns", [*lines, *table(("live", "finals", "false ends", "a minute", "ends between sentences"), lives)])


def _kinds(labels: Sequence[tuple[int, int | None, str]], finals: Sequence[Final], rate: int) -> Iterator[str]:
    """Yield the kinds of the pauses at which finals ended a turn."""
    for final in finals:
        at_ms = final.position * 1000 / rate
        for start_ms, end_ms, kind in labels:
            if final.ends_turn and start_ms <= at_ms and (end_ms is None or at_ms <= end_ms + TOLERANCE_MS):
                yield kind
                break


def _pauses(recording: Recording, labels: Sequence[tuple[int, int | None, str]]) -> Task[list[Pause]]:
    """Return the pauses of a recording for which there is a label."""
    decoded: list[tuple[Window, Transcript]] = []
    yield from live_text(recording, StreamOptions(endpointing_ms=LONGEST_MS), at_pauses=decoded)
    found = []
    for window, transcript in decoded:
        speech_end_ms = milliseconds(window.end) - Segmentation().post_roll_ms
        near = min(labels, key=lambda label: abs(label[0] - speech_end_ms))
        if abs(near[0] - speech_end_ms) <= TOLERANCE_MS:
            length_ms = None if near[1] is None else near[1] - speech_end_ms
            found.append(Pause(milliseconds(window.segment_start), speech_end_ms, length_ms, near[2], transcript))
    return found


def _fixed(heard: Sequence[Sequence[Pause]], ms: int) -> Iterator[tuple[Pause, int]]:
    """Yield each pause and the silence that ends the turn."""
    return ((pause, ms) for pauses in heard for pause in pauses)


def _ruled(heard: Sequence[Sequence[Pause]], rule: TurnRule) -> Iterator[tuple[Pause, int]]:
    """Yield each pause and the silence after which the rule would end the turn, given the ends before it."""
    for pauses in heard:
        said: list[Said] = []
        start = 0
        for pause in pauses:
            wait_ms = closing_ms(pause.transcript, start * SAMPLES_PER_MS, said, rule)
            yield pause, wait_ms
            if pause.length_ms is not None and pause.length_ms >= wait_ms:
                end = pause.speech_end_ms * SAMPLES_PER_MS
                said.append(Said(text=pause.transcript.text, start=start * SAMPLES_PER_MS, end=end))
                # as the next segment begins: with the pre-roll before its speech
                start = pause.speech_end_ms + pause.length_ms - Segmentation().pre_roll_ms


def _row(name: str, judged: Iterator[tuple[Pause, int]], n_by_kind: Counter[str], minutes: float) -> list[str]:
    ended = Counter[str]()
    waits_ms = []
    for pause, wait_ms in judged:
        ended[pause.kind] += pause.length_ms is None or pause.length_ms >= wait_ms
        if pause.kind == "turn":
            waits_ms.append(wait_ms)
    false = ended["mid-sentence"]
    return [
        name,
        str(false),
        f"{100 * false / n_by_kind['mid-sentence']:.0f}",
        f"{false / minutes:.2f}",
        str(ended["sentence"]),
        f"{np.median(waits_ms):.0f}",
        f"{np.percentile(waits_ms, 95):.0f}",
        f"{np.mean(waits_ms):.0f}",
        f"{100 * np.mean(np.array(waits_ms) > LATE_MS):.0f}",
    ]


if __name__ == "__main__":
    main()
