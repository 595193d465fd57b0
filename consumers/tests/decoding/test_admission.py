"""Finals are always admitted and retried until answered; partials are admitted only while there is room."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from whisperline_contracts import StreamOptions
from whisperline_transcriber.decoding import admission as module
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.hypothesis import Transcript

SPEECH = np.zeros(16_000, np.int16)
LIVE, FILE = StreamOptions(), StreamOptions(priority="file")
SAID = Transcript(text="so", language="en", words=[], avg_logprob=0, model="whisper", version="1")


class StandIn:
    """A Triton that answers when `answer` is set, records the lanes of its requests, and lets a test wait for one."""

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


def admission_to(triton: StandIn, settings: Settings) -> Admission:
    return Admission(cast("Triton", triton), settings)


async def test_files_do_not_take_the_slots_of_live_speech(settings: Callable[..., Settings]) -> None:
    """While files use all of their slots, live finals and partials are requested at once."""
    triton = StandIn()
    admission = admission_to(triton, settings(finals_in_flight=2))
    async with asyncio.TaskGroup() as finals:
        for _ in range(5):
            finals.create_task(admission.decode_final("file", SPEECH, FILE))
        await triton.lanes[Lane.FILE].wait()
        assert admission.admits_partial
        for _ in range(2):
            finals.create_task(admission.decode_final("live", SPEECH, LIVE))
        await triton.lanes[Lane.FINAL].wait()
        assert triton.asked == [Lane.FILE, Lane.FINAL, Lane.FINAL]
        assert not admission.admits_partial
        triton.answer.set()


async def test_partials_are_bounded(settings: Callable[..., Settings]) -> None:
    """No more partials are admitted than the setting allows, and another one as soon as one is answered."""
    triton = StandIn()
    admission = admission_to(triton, settings(partials_in_flight=1))
    asking = asyncio.create_task(admission.decode_partial("s", SPEECH, LIVE))
    await triton.lanes[Lane.PARTIAL].wait()
    assert not admission.admits_partial
    triton.answer.set()
    assert await asking == SAID
    assert admission.admits_partial


async def test_partials_follow_the_answers_to_live_speech(
    monkeypatch: pytest.MonkeyPatch, settings: Callable[..., Settings]
) -> None:
    """A slow answer to a file, which waits in Triton's last lane, does not lengthen the cadence of partials."""
    now_s = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s))
    triton = StandIn()
    admission = admission_to(triton, settings())
    quick = admission.partial_cadence_samples
    for options, cadence_samples in ((FILE, quick), (LIVE, 16_000 * 2 * 30)):
        lane = Lane.FILE if options is FILE else Lane.FINAL
        triton.answer.clear()
        triton.lanes[lane].clear()
        asking = asyncio.create_task(admission.decode_final("s", SPEECH, options))
        await triton.lanes[lane].wait()
        now_s += 30
        triton.answer.set()
        await asking
        assert admission.partial_cadence_samples == cadence_samples


@pytest.mark.usefixtures("no_waits")
async def test_a_final_is_asked_for_until_it_is_answered(settings: Callable[..., Settings]) -> None:
    """A final is retried however often Triton fails."""
    triton = StandIn()
    triton.answer.set()
    triton.errors = [TritonError("away", is_retriable=True) for _ in range(20)]
    assert await admission_to(triton, settings()).decode_final("s", SPEECH, LIVE) == SAID
    assert len(triton.asked) == 21


async def test_a_segment_that_triton_refuses_has_no_text(settings: Callable[..., Settings]) -> None:
    """A segment that Triton refuses gets an empty final, and its session goes on."""
    triton = StandIn()
    triton.answer.set()
    triton.errors = [TritonError("no such language", is_retriable=False)]
    assert (await admission_to(triton, settings()).decode_final("s", SPEECH, LIVE)).text == ""
    assert len(triton.asked) == 1


async def test_a_partial_is_asked_for_once(settings: Callable[..., Settings]) -> None:
    """A failed partial is not retried, and the next one comes later, because a Triton that did not answer is slow."""
    triton = StandIn()
    triton.answer.set()
    triton.errors = [TritonError("away", is_retriable=True)]
    admission = admission_to(triton, settings())
    quick = admission.partial_cadence_samples
    assert await admission.decode_partial("s", SPEECH, LIVE) is None
    assert admission.partial_cadence_samples > quick
