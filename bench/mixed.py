"""Measure the latency of live sentences, alone and beside files that keep the model busy."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from clips import SAMPLE_RATE, Pcm, clips_near, mixed_clips
from ours import Server, serving
from report import milliseconds, percentile, say, spread, table, verdict

SENTENCE_S, EVERY_S, RUN_S = 3.0, 0.5, 30.0
N_SENTENCES = 16  # different ones, in turn
N_FILES = 4
FILES_AT_A_TIME = (0, 1, 4)
# The transcriber asks without timestamps, which take a few more steps.
LIVE = {"timestamps": True, "words": True, "lane": "final"}
FILE = {"timestamps": True, "words": True, "lane": "file"}


async def mixed() -> list[str]:
    """Return the latency of live sentences beside no, one and four files at a time."""
    sentences = [clip.read() for clip in clips_near(SENTENCE_S, N_SENTENCES)]
    files = sorted((clip.read() for clip in mixed_clips()), key=len)[-N_FILES:]
    async with serving() as server:
        await asyncio.gather(*(server.ask(audio, LIVE) for audio in [*sentences, *files]))  # warm-up
        async with _Observed(server) as alone:
            await asyncio.gather(*(server.ask(audio, FILE) for audio in files))
        units_s = {stage: alone.mean_s("whisper_unit_seconds", stage) for stage in ("encode", "decode", "align")}
        runs = [await _run(server, sentences, files, at_a_time) for at_a_time in FILES_AT_A_TIME]
    columns = (
        "files at a time",
        "sentences",
        "p50, ms",
        "p95, ms",
        "longest, ms",
        "mean wait, ms",
        "longest wait, at most, ms",
        "longest unit, at most, ms",
        "files, audio s per s",
    )
    units = ", ".join(f"{stage} {milliseconds(unit_s)} ms" for stage, unit_s in units_s.items())
    return [
        f"- A sentence of about {SENTENCE_S:.0f} s every {EVERY_S} s (lane final), with words; files of 25 to 28 s.",
        "- Wait: from a sentence's arrival to its first unit of work. The longest wait and unit: bounds of the buckets "
        "of Triton's histograms that hold them.",
        f"- Units of work of a file, which nothing interrupts, on average: {units}.",
        "",
        *table(columns, [run.row() for run in runs]),
        *_delays(runs, max(units_s.values())),
    ]


def _delays(runs: list["_Run"], unit_s: float) -> list[str]:
    """Return two figures for each run, in units of work: a sentence's longest wait, and its total delay."""
    alone, *others = runs
    return [
        *(
            f"- With {run.at_a_time} at a time, the longest wait of a sentence, in longest units: "
            f"{verdict(run.longest_wait_s / run.longest_unit_s, most=1.0)}."
            for run in others
        ),
        *(
            f"- With {run.at_a_time} at a time, files delay an answer by these parts of {milliseconds(unit_s)} ms: p50 "
            f"{(run.percentile_s(50) - alone.percentile_s(50)) / unit_s:.2f}, p95 "
            f"{verdict((run.percentile_s(95) - alone.percentile_s(95)) / unit_s, most=1.0)}."
            for run in others
        ),
    ]


@dataclass(frozen=True)
class _Run:
    """The latencies of live sentences beside `at_a_time` files."""

    at_a_time: int
    latencies_s: list[float]
    wait_s: float
    longest_wait_s: float
    longest_unit_s: float
    files_s: float

    def percentile_s(self, per_cent: int) -> float:
        return percentile(self.latencies_s, per_cent)

    def row(self) -> list[object]:
        seconds = (max(self.latencies_s), self.wait_s, self.longest_wait_s, self.longest_unit_s)
        figures = [spread(self.latencies_s), *map(milliseconds, seconds), f"{self.files_s / RUN_S:.1f}"]
        return [self.at_a_time, len(self.latencies_s), *figures]


class _Observed:
    """The growth of Triton's histograms over a block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._grown: dict[str, float] = {}

    async def __aenter__(self) -> "_Observed":
        self._before = await self._server.metrics()
        return self

    async def __aexit__(self, *_: object) -> None:
        after = await self._server.metrics()
        self._grown = {name: value - self._before.get(name, 0.0) for name, value in after.items()}

    def mean_s(self, family: str, label: str) -> float:
        """Return the mean of the values that a histogram with this value of a label has counted."""
        total, count = (
            sum(
                value
                for name, value in self._grown.items()
                if name.startswith(f"{family}_{part}") and f'"{label}"' in name
            )
            for part in ("sum", "count")
        )
        return total / count

    def longest_s(self, family: str, label: str = "") -> float:
        """Return the upper bound of the smallest bucket that holds every value of such histograms."""
        buckets = [
            (float(name.rpartition('le="')[2].partition('"')[0]), value)
            for name, value in self._grown.items()
            if name.startswith(f"{family}_bucket") and label in name
        ]
        within = {bound: sum(value for at, value in buckets if at == bound) for bound, _ in buckets}
        return min(bound for bound, value in within.items() if value == within[math.inf])


async def _run(server: Server, sentences: list[Pcm], files: list[Pcm], at_a_time: int) -> _Run:
    say(f"{RUN_S:.0f} s of live sentences beside {at_a_time} files at a time")
    async with _Observed(server) as observed, _files(server, files, at_a_time) as seconds_done:
        latencies_s = await _live(server, sentences)
        files_s = sum(seconds_done)
    wait_s = observed.mean_s("whisper_queue_seconds", "final")
    longest = observed.longest_s("whisper_queue_seconds", '"final"'), observed.longest_s("whisper_unit_seconds")
    return _Run(at_a_time, latencies_s, wait_s, *longest, files_s)


async def _live(server: Server, sentences: list[Pcm]) -> list[float]:
    """Send a sentence every EVERY_S, without waiting for the previous ones. Return the latencies in seconds."""
    first_s = time.perf_counter() + EVERY_S

    async def ask(number: int) -> float:
        due_s = first_s + number * EVERY_S
        await asyncio.sleep(due_s - time.perf_counter())
        assert (await server.ask(sentences[number % len(sentences)], LIVE))["text"]
        return time.perf_counter() - due_s

    return await asyncio.gather(*(ask(number) for number in range(round(RUN_S / EVERY_S))))


@asynccontextmanager
async def _files(server: Server, files: list[Pcm], at_a_time: int) -> AsyncIterator[list[float]]:
    """Keep `at_a_time` files in progress during the block. Yield a list that collects the lengths of finished files."""
    seconds_done: list[float] = []
    over = asyncio.Event()

    async def transcribe(audio: Pcm) -> None:
        while not over.is_set():
            await server.ask(audio, FILE)
            seconds_done.append(len(audio) / SAMPLE_RATE)

    async with asyncio.TaskGroup() as group:
        for number in range(at_a_time):
            group.create_task(transcribe(files[number % len(files)]))
        yield seconds_done
        over.set()
