"""Speech becomes text and rows, through the whole real stack."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from streams import RATE, Samples, Speech, blocks, stored_rows, stream_speech
from whisperline_client import Client, Final, ListenOptions, Partial, SpeechStarted, pace
from whisperline_local import Stack
from whisperline_persistence import Store

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

JFK = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
BECKETT = "ever tried ever failed no matter try again fail again fail better"
END_SILENCE_S = 0.5


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^a-z ]", "", text.lower()).split())


async def test_the_demo_sentence_becomes_text_while_it_is_spoken(
    stack: Stack, demo_clip: Path, figure: Callable[[str], None]
) -> None:
    """All words are right, partials come while the speaker talks, and finals soon after the silence."""
    samples, _ = soundfile.read(demo_clip, dtype="int16")
    got = await stream_speech(stack.gateway_urls[:1], samples)
    assert _words(got.text) in {JFK, BECKETT}
    assert any(isinstance(event, SpeechStarted) for _, event in got.events)
    first_partial_s = min(at for at, event in got.events if isinstance(event, Partial))
    assert first_partial_s < max(at for at, event in got.events if isinstance(event, Final))
    by_silence = [final for final in got.finals if final.speech_final]
    delays = [final.delay_s - END_SILENCE_S for final in by_silence if final.delay_s is not None]
    figure(f"seconds from the end of the closing silence to each final: {[round(delay, 2) for delay in delays]}")
    assert len(delays) == len(by_silence)
    async with Store.open(stack.database_url) as store:
        rows = await stored_rows(store, got.session_id)
    assert [(row[0], row[3]) for row in rows] == [(final.segment_index, final.text) for final in got.finals]
    assert all(row[4] for row in rows)


async def test_finals_do_not_depend_on_chunks_jitter_or_load(stack: Stack, speech: list[Speech]) -> None:
    """The same speech in chunks of 10 ms to 1 s, with jitter, alone or beside others, gives the same finals."""
    piece = speech[0].samples
    seeded = random.Random(7)
    alone = await stream_speech(stack.gateway_urls, piece, speed=4)
    loaded = await asyncio.gather(
        stream_speech(stack.gateway_urls, piece, chunk_ms=10),
        stream_speech(stack.gateway_urls, piece, chunk_ms=1_000),
        stream_speech(stack.gateway_urls[::-1], piece, chunk_ms=37, jitter_s=lambda: seeded.uniform(0, 0.4)),
        stream_speech(stack.gateway_urls, piece, chunk_ms=250, speed=None),
        *(stream_speech(stack.gateway_urls, other.samples) for other in speech[1:5]),
    )
    async with Store.open(stack.database_url) as store:
        expected = await stored_rows(store, alone.session_id)
        assert len(expected) >= 2
        for other in loaded[:4]:
            assert await stored_rows(store, other.session_id) == expected


def _cut_in_a_word(samples: Samples) -> Samples:
    """Return the first seconds of speech up to the middle of their loudest moment.

    Where audio ends in silence, the silence may close the segment before anybody asks for it to be closed.
    """
    first, last = (round(second * RATE) for second in (1.5, 4.0))
    moments = samples[first:last].astype(np.float64).reshape(-1, RATE // 10)
    loudest = int(np.argmax((moments**2).mean(axis=1)))
    return samples[: first + loudest * (RATE // 10) + RATE // 20]


async def test_finalize_closes_the_open_segment(stack: Stack, speech: list[Speech]) -> None:
    """`Finalize` gets the final of the speech so far at once."""
    spoken, answered = asyncio.Event(), asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        async for block in pace(blocks(_cut_in_a_word(speech[0].samples)), bytes_per_s=2 * RATE):
            yield block
        spoken.set()
        await answered.wait()

    finals = []
    async with Client(stack.gateway_urls).stream(audio(), ListenOptions(language="en")) as stream:

        async def ask() -> None:
            await spoken.wait()
            stream.finalize()

        asking = asyncio.create_task(ask())
        async for event in stream:
            if isinstance(event, Final):
                finals.append(event)
                if event.from_finalize:
                    answered.set()
        await asking
    assert finals[-1].from_finalize
    assert finals[-1].text
