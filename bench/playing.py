"""Play speech to a gateway in real time, and note when each message comes, counted from the first sample spoken."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from clips import SAMPLE_RATE, Pcm
from whisperline_client import Client, Disconnected, Event, Final, ListenOptions, Partial

CHUNK_MS = 50


@dataclass(frozen=True)
class Played:
    """A session that has ended.

    `messages` are its events with their times, and `finalized_s` when each `Finalize` was asked for, both in seconds
    from the first sample.
    """

    messages: tuple[tuple[float, Event], ...]
    finalized_s: tuple[float, ...]

    @property
    def lost(self) -> list[str]:
        """Why connections were lost. If any was, the times are not those of a stream that works."""
        return [event.reason for _, event in self.messages if isinstance(event, Disconnected)]

    @property
    def finals(self) -> list[tuple[float, Final]]:
        return [(at_s, event) for at_s, event in self.messages if isinstance(event, Final)]

    @property
    def partials(self) -> list[tuple[float, Partial]]:
        return [(at_s, event) for at_s, event in self.messages if isinstance(event, Partial)]


async def play(
    urls: Sequence[str],
    samples: Pcm,
    options: ListenOptions,
    *,
    finalize_at_s: Sequence[float] = (),
    chunk_ms: int = CHUNK_MS,
) -> Played:
    """Stream 16 kHz samples in real time, and send `Finalize` as soon as the audio up to each given time is spoken."""
    chunk = SAMPLE_RATE * chunk_ms // 1000
    began_s = 0.0
    finalized_s: list[float] = []
    messages: list[tuple[float, Event]] = []

    async def spoken() -> AsyncIterator[bytes]:
        nonlocal began_s
        waiting = list(finalize_at_s)
        began_s = time.monotonic()
        for start in range(0, len(samples), chunk):
            part = samples[start : start + chunk]
            await asyncio.sleep(began_s + (start + len(part)) / SAMPLE_RATE - time.monotonic())
            yield part.tobytes()
            if waiting and start + len(part) >= waiting[0] * SAMPLE_RATE:
                waiting.pop(0)
                finalized_s.append(time.monotonic() - began_s)
                stream.finalize()

    async with Client(urls, close_timeout_s=60).stream(spoken(), options) as stream:
        async for event in stream:
            messages.append((time.monotonic() - began_s, event))
    return Played(tuple(messages), tuple(finalized_s))
