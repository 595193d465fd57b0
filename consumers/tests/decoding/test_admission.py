"""Who may ask Triton, and when."""

import asyncio
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from whisperline_contracts import StreamOptions
from whisperline_transcriber.decoding import admission as module
from whisperline_transcriber.decoding.admission import Decoder
from whisperline_transcriber.decoding.triton import Lane, Request, Transcript, TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples

SPEECH = np.zeros(16_000, np.int16)
LIVE, FILE = StreamOptions(), StreamOptions(priority="file")
SAID = Transcript(text="so", language="en", words=[], avg_logprob=0, model="whisper", version="1")


class Triton:
    """Answers when `answer` is set; tells which lanes were asked, and lets somebody wait for a lane."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.asked: list[Lane] = []
        self.errors: list[TritonError] = []
        self.lanes = {lane: asyncio.Event() for lane in Lane}

    async def transcribe(self, audio: Samples, request: Request) -> Transcript:
        self.asked.append(request.lane)
        self.lanes[request.lane].set()
        await self.answer.wait()
        if self.errors:
            raise self.errors.pop(0)
        return SAID


def decoder_of(triton: Triton, **settings: int) -> Decoder:
    return Decoder(triton, Settings(vad_model=Path(__file__), **settings))  # type: ignore[arg-type]


async def test_files_do_not_take_the_slots_of_live_speech() -> None:
    """While files have every slot that they may have, live finals and partials are asked for at once."""
    triton = Triton()
    decoder = decoder_of(triton, finals_in_flight=2)
    async with asyncio.TaskGroup() as finals:
        for _ in range(5):
            finals.create_task(decoder.final("file", SPEECH, FILE))
        await triton.lanes[Lane.FILE].wait()
        assert decoder.partial_allowed
        for _ in range(2):
            finals.create_task(decoder.final("live", SPEECH, LIVE))
        await triton.lanes[Lane.FINAL].wait()
        assert triton.asked == [Lane.FILE, Lane.FINAL, Lane.FINAL]
        assert not decoder.partial_allowed
        triton.answer.set()


async def test_partials_follow_the_answers_to_live_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's answer that took long, in Triton's last lane, says nothing of how soon a partial would come."""
    now_s = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))
    triton = Triton()
    decoder = decoder_of(triton)
    quick = decoder.cadence_samples
    for options, cadence_samples in ((FILE, quick), (LIVE, 16_000 * 2 * 30)):
        triton.answer.clear()
        triton.lanes[Lane.FILE if options is FILE else Lane.FINAL].clear()
        asking = asyncio.create_task(decoder.final("s", SPEECH, options))
        await triton.lanes[Lane.FILE if options is FILE else Lane.FINAL].wait()
        now_s += 30
        triton.answer.set()
        await asking
        assert decoder.cadence_samples == cadence_samples


async def test_a_final_is_asked_for_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often Triton fails; what it refuses has no text, and its session goes on."""
    monkeypatch.setattr(module, "delays_s", lambda: repeat(0))
    triton = Triton()
    triton.answer.set()
    decoder = decoder_of(triton)
    triton.errors = [TritonError("away", retriable=True) for _ in range(20)]
    assert await decoder.final("s", SPEECH, LIVE) == SAID
    assert len(triton.asked) == 21
    triton.errors = [TritonError("no such language", retriable=False)]
    assert (await decoder.final("s", SPEECH, LIVE)).text == ""
    triton.errors = [TritonError("away", retriable=True)]
    assert await decoder.partial("s", SPEECH, LIVE) is None
