"""Measure the memory of the server and the model's process over 20,000 requests, and with rising concurrency.

    make bench-memory    # about 20 minutes on two cores

Bounds: after the first SETTLED requests the memory grows by no more than MAX_GROWTH_MB (a long request's arrays come
and go: samples are averaged); beyond a full batch, a request that waits costs no more than COPIES of its audio and
STREAM_MB. The table goes to bench/results/serving-memory.md.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from statistics import mean

from clips import SAMPLE_RATE, Pcm, mixed_clips, recorded_clips
from ours import Options, Server, serving
from report import heading, say, table, verdict, write

N_REQUESTS, EVERY, SETTLED = 20_000, 1000, 2000
AVERAGED = 4  # samples in one average
IN_FLIGHT = 16
MAX_GROWTH_MB = 50.0
SHORTEST_S, SHORT_S = 1.0, 2.5
LONG_SHARE = 0.02  # of the requests are whole clips of 2 to 28 s; the others are the first 1 to 2.5 s of one
CONCURRENCY = (1, 16, 64, 256)
CLIP_S = 5.0
ROUNDS = 2
# Copies of a waiting request's audio: gRPC's and Triton's in int16, and the model's in float32, which counts twice.
COPIES = 4
STREAM_MB = 1.0  # memory in the server for the stream of a request
OPTIONS: tuple[Options, ...] = ({"temperature": 0}, {"timestamps": True, "words": True, "temperature": 0})
BYTES_PER_S = 32_000
WAITING_MB = COPIES * CLIP_S * BYTES_PER_S / 1e6 + STREAM_MB


async def main() -> None:
    """Measure both and write the report."""
    async with serving() as server:
        concurrent = await _by_concurrency(server)
    async with serving() as server:
        lasting = await _over_time(server)
    write("serving-memory", heading("Memory of serving", "make bench-memory") + concurrent + lasting)


async def _over_time(server: Server) -> list[str]:
    """Return the table of the current memory (not the peak) after each thousand requests."""
    requests = itertools.islice(_requests(), N_REQUESTS)
    rows: list[tuple[int, float]] = []
    began_s = time.monotonic()
    for number in range(EVERY, N_REQUESTS + 1, EVERY):
        part = itertools.islice(requests, EVERY)

        async def work(part: Iterator[tuple[Pcm, Options]] = part) -> None:
            for audio, options in part:
                await server.ask(audio, options)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        rows.append((number, server.memory_mb("VmRSS")))
        say(f"{number} requests in {time.monotonic() - began_s:.0f} s: {rows[-1][1]:.0f} MB")
    settled = [memory for number, memory in rows if number > SETTLED]
    growth = verdict(mean(settled[-AVERAGED:]) - mean(settled[:AVERAGED]), most=MAX_GROWTH_MB)
    title = f"## {N_REQUESTS} requests of 1 to 28 s, {IN_FLIGHT} at a time"
    bound = (
        f"Growth in MB after the first {SETTLED}, from the first {AVERAGED} samples to the last {AVERAGED}: {growth}."
    )
    return [title, "", bound, "", *table(("requests", "memory, MB"), [(n, f"{memory:.0f}") for n, memory in rows])]


def _requests() -> Iterator[tuple[Pcm, Options]]:
    """Yield endless requests, the same in every run: most short, some long, with and without words."""
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    clips = [clip.read() for clip in mixed_clips()]
    while True:
        audio = chance.choice(clips)
        if chance.random() > LONG_SHARE:
            audio = audio[: round(chance.uniform(SHORTEST_S, SHORT_S) * SAMPLE_RATE)]
        yield audio, chance.choice(OPTIONS)


async def _by_concurrency(server: Server) -> list[str]:
    """Return the table of the peak memory at rising concurrency, with the cost of each waiting request."""
    whole = next(clip.read() for clip in recorded_clips() if clip.duration_s > CLIP_S)
    audio = whole[: round(CLIP_S * SAMPLE_RATE)]
    rows: list[list[object]] = []
    full_mb = 0.0
    for at_a_time in CONCURRENCY:
        say(f"{at_a_time} requests at a time")
        for _ in range(ROUNDS):
            await asyncio.gather(*(server.ask(audio, OPTIONS[1]) for _ in range(at_a_time)))
        memory_mb = server.memory_mb()
        waiting = at_a_time - IN_FLIGHT
        full_mb = memory_mb if waiting <= 0 else full_mb
        cost = verdict((memory_mb - full_mb) / waiting, most=WAITING_MB) if waiting > 0 else "-"
        rows.append([at_a_time, f"{memory_mb:.0f}", cost])
    title = f"## Requests of {CLIP_S:.0f} s at a time"
    return [title, "", *table(("requests at a time", "most memory, MB", "MB for each that waits"), rows)]


if __name__ == "__main__":
    asyncio.run(main())
