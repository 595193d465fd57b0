"""Live sentences alone, and beside files that keep the model busy: how long a sentence waits for a file."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clips import Pcm, clips_near, mixed_clips
from ours import Server, serving
from report import milliseconds, say, spread, table

SENTENCE_S, EVERY_S, RUN_S = 3.0, 0.5, 40.0
N_SENTENCES = 16  # different ones, in turn
N_FILES = 4
FILES_AT_A_TIME = (0, 1, 4)
LIVE = {"timestamps": True, "words": True, "lane": "final"}  # as the transcriber asks
FILE = {"timestamps": True, "words": True, "lane": "file"}


async def mixed() -> list[str]:
    """Latency of live sentences beside no, one and four files at a time."""
    sentences = [clip.read() for clip in clips_near(SENTENCE_S, N_SENTENCES)]
    files = sorted((clip.read() for clip in mixed_clips()), key=len)[-N_FILES:]
    measured: dict[int, list[float]] = {}
    rows = []
    async with serving() as server:
        await asyncio.gather(*(server.ask(audio, LIVE) for audio in [*sentences, *files]))  # warm-up
        for at_a_time in FILES_AT_A_TIME:
            say(f"{RUN_S:.0f} s of live sentences beside {at_a_time} files at a time")
            async with _files(server, files, at_a_time) as seconds_done:
                measured[at_a_time] = await _live(server, sentences)
            rows.append(_row(at_a_time, measured[at_a_time], sum(seconds_done)))
    columns = ("files at a time", "sentences", "p50, ms", "p95, ms", "longest, ms", "files, audio s per s")
    about = f"A sentence of about {SENTENCE_S:.0f} s every {EVERY_S} s (lane final), with words; files of 25 to 28 s."
    return [about, "", *table(columns, rows)]


def _row(at_a_time: int, latencies_s: list[float], audio_s: float) -> list[object]:
    longest = milliseconds(max(latencies_s))
    return [at_a_time, len(latencies_s), spread(latencies_s), longest, f"{audio_s / RUN_S:.1f}"]


async def _live(server: Server, sentences: list[Pcm]) -> list[float]:
    """Ask for a sentence at each turn of the clock, however long the others take; the latencies in seconds."""
    first_s = time.perf_counter() + EVERY_S
    due_s = [first_s + number * EVERY_S for number in range(round(RUN_S / EVERY_S))]
    asked = (_ask_at(server, sentences[number % len(sentences)], at_s) for number, at_s in enumerate(due_s))
    return await asyncio.gather(*asked)


async def _ask_at(server: Server, audio: Pcm, at_s: float) -> float:
    await asyncio.sleep(at_s - time.perf_counter())
    assert (await server.ask(audio, LIVE))["text"]
    return time.perf_counter() - at_s


@asynccontextmanager
async def _files(server: Server, files: list[Pcm], at_a_time: int) -> AsyncIterator[list[float]]:
    """So many files at work until the end of the block; gives the seconds of each that is done."""
    seconds_done: list[float] = []
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(at_a_time):
            group.create_task(_transcribe_until(over, server, files[number % len(files)], seconds_done))
        yield seconds_done
        over.set()


async def _transcribe_until(over: asyncio.Event, server: Server, audio: Pcm, seconds_done: list[float]) -> None:
    while not over.is_set():
        await server.ask(audio, FILE)
        seconds_done.append(len(audio) / 16000)
