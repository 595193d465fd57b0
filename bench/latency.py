"""Measure the latency of text: real speech in real time through the whole stack, as one stream and as several.

    make bench-latency

For each number of streams, every one plays the demo's clip ROUNDS times. Reported are the seconds from the moment
that a segment's closing silence has passed (the earliest that anybody could know that it is over) to its final
at the client, and from the start of speech to the first partial. The table goes to bench/results/.
"""

import asyncio
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from whisperline_client import AudioFile, Client, Final, Partial
from whisperline_local import LocalSettings, Stack
from whisperline_local.assets import demo_speech

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent.parent / ".state" / "cache"
STREAMS = (1, 4, 8)
ROUNDS = 2
END_SILENCE_S = 0.5
PACKAGES = ("aiokafka", "onnxruntime", "tritonclient", "numpy")


async def main() -> None:
    """Measure, print the table, and write it to a file."""
    with tempfile.TemporaryDirectory() as state:
        settings = LocalSettings(state_dir=Path(state), cache_dir=CACHE, port_offset=4_000)
        async with Stack(settings) as stack:
            clip = AudioFile.open(await demo_speech(settings))
            await play(stack, clip)  # warm-up
            rows = [await measure(stack, clip, streams) for streams in STREAMS]
    report = "\n".join([*heading(clip), *rows, ""])
    Console().print(report, markup=False)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latency.md").write_text(report)


async def measure(stack: Stack, clip: AudioFile, streams: int) -> str:
    """Return a row of the table."""
    finals: list[float] = []
    partials: list[float] = []
    for _ in range(ROUNDS):
        for final_s, partial_s in await asyncio.gather(*(play(stack, clip) for _ in range(streams))):
            finals += final_s
            partials += partial_s
    return f"| {streams} | {len(finals)} | {spread(finals)} | {len(partials)} | {spread(partials)} |"


async def play(stack: Stack, clip: AudioFile) -> tuple[list[float], list[float]]:
    """Return the delay of each final that a silence closed, and of the first partial, in seconds."""
    finals: list[float] = []
    partials: list[float] = []
    began_s = time.monotonic()
    async with Client(stack.gateway_urls).stream(clip.live(), clip.options(language="en")) as stream:
        async for event in stream:
            if isinstance(event, Partial) and not partials:
                partials.append(time.monotonic() - began_s)
            if isinstance(event, Final) and event.speech_final and event.delay_s is not None:
                finals.append(event.delay_s - END_SILENCE_S)
    return finals, partials


def spread(values: list[float]) -> str:
    """Return the median and the 95th percentile."""
    if len(values) < 2:
        return f"{values[0]:.2f} | " if values else "- | -"
    return f"{statistics.median(values):.2f} | {statistics.quantiles(values, n=20)[-1]:.2f}"


def heading(clip: AudioFile) -> list[str]:
    """Return the lines above the table: date, machine, versions, and how it was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        "# From the end of speech to the final",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, `make bench-latency`, {platform.processor() or platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {versions}.",
        f"tiny.en on the CPU; {clip.path.name}, {clip.duration_s:.0f} s, in real time, {ROUNDS} rounds. Seconds.",
        "Expected before the run: under 1.0 for one stream (one request of a 12 s window, about 0.3).",
        "",
        "| streams | finals | final p50 | final p95 | sessions with partials | first partial p50 | first partial p95 |",
        "|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    asyncio.run(main())
