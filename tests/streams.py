"""Stream real speech through a running stack, and read the rows that it leaves."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from stacks import CHECKOUT
from whisperline_client import Client, Closed, Event, Final, ListenOptions, RetryPolicy, pace
from whisperline_persistence import Store, StoreError

SPEECH_DIR = Path(os.environ.get("WHISPERLINE_SPEECH_DIR", CHECKOUT.parent / "shared" / "speech"))
RATE = 16_000  # Hz
GAP_S = 0.9  # silence between the sentences of a clip: longer than the silence that closes a segment
CLIPS = 8
STORED_LIMIT_S = 60.0
POLL_S = 0.1

Samples = NDArray[np.int16]
Row = tuple[int, int, int, str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class Speech:
    """Real speech of several sentences, 16 kHz mono."""

    name: str
    samples: Samples

    @property
    def duration_s(self) -> float:
        return len(self.samples) / RATE


@dataclass(frozen=True)
class Streamed:
    """A session that a client has streamed: its events, each with the time at which it came (`time.monotonic`)."""

    session_id: str
    events: tuple[tuple[float, Event], ...]

    @property
    def finals(self) -> list[Final]:
        return [event for _, event in self.events if isinstance(event, Final)]

    @property
    def connection_count(self) -> int:
        closed = self.events[-1][1]
        assert isinstance(closed, Closed)
        return closed.connection_count

    @property
    def text(self) -> str:
        return " ".join(final.text for final in self.finals if final.text)


def sentences() -> list[Samples]:
    """Return read English sentences of 3 to 8 s, in the order of the manifest."""
    manifest = SPEECH_DIR / "manifest.jsonl"
    if not manifest.is_file():
        return []
    clips = [json.loads(line) for line in manifest.read_text().splitlines()]
    wanted = [
        SPEECH_DIR / clip["path"]
        for clip in clips
        if clip["language"] == "en"
        and clip["sample_rate"] == RATE
        and clip["channels"] == 1
        and 3 <= clip["duration_s"] <= 8
    ]
    return [soundfile.read(path, dtype="int16")[0] for path in wanted[: 3 * CLIPS]]


async def blocks(samples: Samples) -> AsyncIterator[bytes]:
    """Yield the samples in blocks of one second."""
    for at in range(0, len(samples), RATE):
        yield samples[at : at + RATE].tobytes()


async def stream_speech(
    urls: Sequence[str],
    samples: Samples,
    *,
    chunk_ms: float = 100,
    speed: float | None = 1.0,
    jitter_s: Callable[[], float] | None = None,
    options: ListenOptions | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> Streamed:
    """Stream the samples in real time, even if processes are killed meanwhile, and return the session.

    `on_event` is called with each event as it comes.
    """
    audio = pace(blocks(samples), bytes_per_s=2 * RATE, chunk_ms=chunk_ms, speed=speed, jitter_s=jitter_s)
    client = Client(urls, retry=RetryPolicy(deadline_s=90), close_timeout_s=60)
    events: list[tuple[float, Event]] = []
    async with client.stream(audio, options or ListenOptions(language="en")) as stream:
        async for event in stream:
            events.append((time.monotonic(), event))
            if on_event is not None:
                on_event(event)
    assert isinstance(events[-1][1], Closed)
    return Streamed(events[-1][1].session_id, tuple(events))


async def stored_rows(store: Store, session_id: str) -> list[Row]:
    """Return the rows of a session once its end is stored."""

    async def ended() -> bool:
        session = await store.session(session_id)
        return session is not None and session.segment_count is not None

    await eventually(ended, f"the end of session {session_id} to be stored")
    return [
        (
            final.segment_index,
            final.start_ms,
            final.end_ms,
            final.text,
            tuple((word.word, word.start_ms, word.end_ms) for word in final.words),
        )
        for final in await store.finals(session_id)
    ]


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, limit_s: float = STORED_LIMIT_S) -> None:
    """Poll a database or a process until `condition` holds, because neither signals a change."""
    deadline_s = time.monotonic() + limit_s
    while True:
        with suppress(StoreError):  # the database is being restarted
            if await condition():
                return
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {limit_s:.0f} s in vain for {what}")
        await asyncio.sleep(POLL_S)
