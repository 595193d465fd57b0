"""Measure the delay of text as voice builders count it: from the true end of speech, through the whole stack.

    make bench-latency               # alone and as eight streams, about 11 minutes
    make bench-latency UTTERANCES=3  # of each kind, for a quick look

Utterances of many speakers (read aloud, said on the telephone, turns of telephone calls) are played in real time, each
followed by silence, on one stream and on several. `utterances.py` says how the end of speech is found. Measured are
(a) the right text on screen: since when what the client shows has the words of the turn's finals, (b) `speech_final`
with the default options, and (c), for a client that has its own voice activity and sends `Finalize` FINALIZE_AFTER_S
after the end of speech, the time from there to the final. The table goes to bench/results/latency.md.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from clips import SAMPLE_RATE
from ours import CACHE, PORT_OFFSET
from playing import CHUNK_MS, Played, play
from report import heading, percentile, say, table, verdict, write
from utterances import AGREEMENT_S, Utterance, utterances
from whisperline_client import Final, Finalized, ListenOptions, Partial
from whisperline_local import LocalSettings, Stack
from whisperline_models.gate import scoring

STREAMS = (1, 8)
PER_KIND = 8
SILENCE_S = 2.6  # behind an utterance: longer than the longest closing silence
FINALIZE_AFTER_S, FINALIZE_SILENCE_S = 0.2, 1.0
TARGETS_S = {"screen": (0.40, 0.9), "speech_final": (0.7, 1.8), "finalize": (0.060, 0.150)}  # p50, p95


@dataclass
class Delays:
    """Seconds of delay, a list for each measure, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TARGETS_S})
    early: int = 0  # turns that were ended before their speaker had stopped
    missing: int = 0  # utterances without a word
    lost: int = 0  # connections, which makes the times too short or too long


@dataclass(frozen=True)
class Line:
    """Utterances one after the other, as one stream plays them: `starts_s` and `ends_s` are of their speech."""

    samples: np.ndarray[tuple[int], np.dtype[np.int16]]
    starts_s: list[float]
    ends_s: list[float]


async def main() -> None:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=PER_KIND, help="of each kind")
    spoken = utterances(parser.parse_args().utterances)
    options = ListenOptions(language="en")
    rows = []
    with tempfile.TemporaryDirectory() as state:
        async with Stack(LocalSettings(state_dir=Path(state), cache_dir=CACHE, port_offset=PORT_OFFSET)) as stack:
            await play(stack.gateway_urls, line(spoken[:3], SILENCE_S).samples, options)  # warm-up
            for streams in STREAMS:
                delays = Delays()
                for silence_s, after_s in ((SILENCE_S, None), (FINALIZE_SILENCE_S, FINALIZE_AFTER_S)):
                    # Each stream begins with another utterance, so that they do not all stop at the same moment.
                    lines = [line([*spoken[at:], *spoken[:at]], silence_s) for at in range(streams)]
                    say(f"{streams} streams, {len(lines[0].samples) / SAMPLE_RATE:.0f} s")
                    ends = [[end_s + after_s for end_s in each.ends_s] if after_s else [] for each in lines]
                    played = await asyncio.gather(
                        *(
                            play(stack.gateway_urls, each.samples, options, finalize_at_s=finalize_at_s)
                            for each, finalize_at_s in zip(lines, ends, strict=True)
                        )
                    )
                    for each, got in zip(lines, played, strict=True):
                        delays.lost += len(got.lost)
                        if after_s is None:
                            note_turns(delays, each, got)
                        else:
                            note_finalized(delays, each, got)
                rows += list(report(streams, delays))
    notes = [
        f"tiny.en on the CPU, real time, {CHUNK_MS} ms a message, {len(spoken)} utterances of "
        f"{len({utterance.speaker for utterance in spoken})} speakers on each stream, {SILENCE_S} s of silence behind "
        "each. Seconds from the end of speech, which is found in the samples by their energy and with which the "
        f"voice-activity model agrees within {AGREEMENT_S} s; `Finalize` comes {FINALIZE_AFTER_S} s after it, and its "
        "delay counts from there.",
        "A turn that was ended too early (the speaker went on) counts from the last of its finals, and in its column.",
    ]
    columns = (
        "streams",
        "measure",
        "count",
        "p50, s",
        "p95, s",
        "longest, s",
        "ended too early",
        "without text",
        "connections lost",
    )
    write(
        "latency", [*heading("From the end of speech to the text", "make bench-latency", *notes), *table(columns, rows)]
    )


def line(spoken: Sequence[Utterance], silence_s: float) -> Line:
    """Return the utterances as one stream plays them, each followed by silence."""
    parts = [utterance.with_silence(silence_s) for utterance in spoken]
    starts_s = [0.0, *accumulate(len(part) / SAMPLE_RATE for part in parts)][:-1]
    ends_s = [start_s + utterance.end_s for start_s, utterance in zip(starts_s, spoken, strict=True)]
    return Line(np.concatenate(parts), starts_s, ends_s)


def note_turns(delays: Delays, line: Line, played: Played) -> None:
    """Note since when each utterance's words were on screen, and when its `speech_final` came."""
    for start_s, end_s, next_s in spans(line):
        own = [(at, final) for at, final in played.finals if final.text and start_s <= middle_s(final) < next_s]
        if not own:
            delays.missing += 1
            continue
        delays.early += sum(final.speech_final for _, final in own[:-1])
        ended_s = own[-1][0]
        delays.seconds["speech_final"].append(ended_s - end_s)
        delays.seconds["screen"].append(shown_since_s(played, own) - end_s)


def shown_since_s(played: Played, finals: Sequence[tuple[float, Final]]) -> float:
    """Return since when the text on screen has had the words of these finals, until the last of them came."""
    indices = {final.segment_index for _, final in finals}
    target = words(" ".join(final.text for _, final in finals))
    screen: dict[int, str] = {}
    since_s: float | None = None
    for at_s, event in played.messages:
        if isinstance(event, Partial | Final) and event.segment_index in indices:
            screen[event.segment_index] = event.text
            is_right = words(" ".join(text for _, text in sorted(screen.items()))) == target
            since_s = (since_s if since_s is not None else at_s) if is_right else None
    assert since_s is not None, "the last final shows the target"
    return since_s


def note_finalized(delays: Delays, line: Line, played: Played) -> None:
    """Note the time from each `Finalize` to the final of the utterance, or to the answer that it has gone out."""
    answers_s = [
        at
        for at, event in played.messages
        if isinstance(event, Finalized) or (isinstance(event, Final) and event.from_finalize)
    ]
    for finalized_s, (start_s, _, next_s) in zip(played.finalized_s, spans(line), strict=True):
        has_text = any(final.text and start_s <= middle_s(final) < next_s for _, final in played.finals)
        answered_s = next((at for at in answers_s if at >= finalized_s), None)
        if not has_text or answered_s is None:
            delays.missing += 1
        else:
            delays.seconds["finalize"].append(answered_s - finalized_s)


def middle_s(final: Final) -> float:
    """Return the middle of a final's segment: it lies in its utterance, whereas the segment begins before it."""
    return (final.start_ms + final.end_ms) / 2000


def spans(line: Line) -> Iterator[tuple[float, float, float]]:
    """Yield the start and the end of each utterance's speech, and the start of the next, in seconds."""
    return zip(line.starts_s, line.ends_s, [*line.starts_s[1:], float("inf")], strict=True)


def words(text: str) -> list[str]:
    """Return the words of a text without case and punctuation."""
    return scoring.normalize(text, "en").split()


def report(streams: int, delays: Delays) -> Iterator[list[object]]:
    """Yield a row for each measure."""
    names = {"screen": "right text on screen", "speech_final": "`speech_final`", "finalize": "`Finalize` to final"}
    for name, (median_s, high_s) in TARGETS_S.items():
        values = delays.seconds[name]
        yield [
            streams,
            names[name],
            len(values),
            verdict(percentile(values, 50), most=median_s),
            verdict(percentile(values, 95), most=high_s),
            f"{max(values):.2f}",
            delays.early if name == "speech_final" else "",
            delays.missing if name == "screen" else "",
            delays.lost if name == "screen" else "",
        ]


if __name__ == "__main__":
    asyncio.run(main())
