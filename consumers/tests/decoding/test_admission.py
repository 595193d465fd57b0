"""Finals are always admitted and retried until answered; speculations and partials while there is room."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from whisperline_transcriber.decoding import admission as module
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.hypothesis import Transcript

SPEECH = np.zeros(16_000, np.int16)
REQUEST = Request("s", "en")
MUCH = 16_000  # new samples that make a partial due while Triton is fast
SAID = Transcript(text="so", language="en", words=[], avg_logprob=0, model="whisper", version="1")


class StandIn:
    """A Triton that answers when `answer` is set, records the lanes of its requests, and lets a test wait for one."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.asked: list[Lane] = []
        self.errors: list[TritonError] = []
        self.lanes = {lane: asyncio.Event() for lane in Lane}

    async def transcribe(self, audio: Samples, request: Request, lane: Lane, deadline_s: float) -> Transcript:
        self.asked.append(lane)
        self.lanes[lane].set()
        await self.answer.wait()
        if self.errors:
            raise self.errors.pop(0)
        return SAID


@pytest.fixture
def triton() -> StandIn:
    return StandIn()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that admission sees; a test moves it by `now_s`."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def admission_to(triton: StandIn, settings: Settings) -> Admission:
    return Admission(cast("Triton", triton), settings)


async def test_files_do_not_take_the_slots_of_live_speech(triton: StandIn, settings: Callable[..., Settings]) -> None:
    """While files use all of their slots, live finals, speculations and partials are requested at once."""
    admission = admission_to(triton, settings(finals_in_flight=2))
    async with asyncio.TaskGroup() as finals:
        for _ in range(5):
            finals.create_task(admission.decode_final(SPEECH, REQUEST, "file"))
        await triton.lanes[Lane.FILE].wait()
        assert admission.admits_speculation
        assert admission.admits_partial("s", MUCH)
        for _ in range(2):
            finals.create_task(admission.decode_final(SPEECH, REQUEST))
        await triton.lanes[Lane.FINAL].wait()
        assert triton.asked == [Lane.FILE, Lane.FINAL, Lane.FINAL]
        assert not admission.admits_partial("s", MUCH)
        triton.answer.set()


async def test_partials_are_bounded(triton: StandIn, settings: Callable[..., Settings]) -> None:
    """No more partials are admitted than the setting allows, and another one as soon as one is answered."""
    admission = admission_to(triton, settings(partials_in_flight=1))
    asking = asyncio.create_task(admission.decode_partial(SPEECH, REQUEST))
    await triton.lanes[Lane.PARTIAL].wait()
    assert not admission.admits_partial("s", MUCH)
    triton.answer.set()
    assert await asking == SAID
    assert admission.admits_partial("s", MUCH)


async def test_the_session_with_the_most_unseen_speech_gets_the_next_partial(
    clock: SimpleNamespace, triton: StandIn, settings: Callable[..., Settings]
) -> None:
    """A free slot is not for the session that asks first, but one that has stopped asking holds nobody up."""
    admission = admission_to(triton, settings(partials_in_flight=1))
    asking = asyncio.create_task(admission.decode_partial(SPEECH, REQUEST))
    await triton.lanes[Lane.PARTIAL].wait()
    assert not admission.admits_partial("longest", 3 * MUCH)
    assert not admission.admits_partial("long", 2 * MUCH)
    triton.answer.set()
    await asking
    assert not admission.admits_partial("long", 2 * MUCH)
    clock.now_s += module.WAITING_S
    assert not admission.admits_partial("short", MUCH - 16_000)
    assert admission.admits_partial("long", 2 * MUCH)


async def test_speculations_leave_room_for_finals(triton: StandIn, settings: Callable[..., Settings]) -> None:
    """Speculations use the finals' lane, and none is admitted while a few finals or speculations are in flight."""
    admission = admission_to(triton, settings(speculations_in_flight=2))
    async with asyncio.TaskGroup() as tasks:
        speculation = tasks.create_task(admission.speculate(SPEECH, REQUEST))
        await triton.lanes[Lane.FINAL].wait()
        assert admission.admits_speculation
        triton.lanes[Lane.FINAL].clear()
        tasks.create_task(admission.decode_final(SPEECH, REQUEST))
        await triton.lanes[Lane.FINAL].wait()
        assert not admission.admits_speculation
        triton.answer.set()
    assert speculation.result() == SAID
    assert admission.admits_speculation
    assert not admission_to(triton, settings(speculations_in_flight=0)).admits_speculation


@pytest.mark.parametrize("is_retriable", [True, False])
async def test_a_speculation_is_asked_for_once(
    triton: StandIn, settings: Callable[..., Settings], is_retriable: bool
) -> None:
    """A failed speculation has no result; the final is decoded at the close."""
    triton.answer.set()
    triton.errors = [TritonError("away", is_retriable=is_retriable)]
    assert await admission_to(triton, settings()).speculate(SPEECH, REQUEST) is None
    assert len(triton.asked) == 1


async def test_partials_follow_the_answers_to_live_speech(
    clock: SimpleNamespace, triton: StandIn, settings: Callable[..., Settings]
) -> None:
    """A slow answer to a file, which waits in Triton's last lane, does not make partials rarer."""
    admission = admission_to(triton, settings())
    for priority, lane in (("file", Lane.FILE), ("live", Lane.FINAL)):
        triton.answer.clear()
        triton.lanes[lane].clear()
        asking = asyncio.create_task(admission.decode_final(SPEECH, REQUEST, priority))  # type: ignore[arg-type]
        await triton.lanes[lane].wait()
        clock.now_s += 30
        triton.answer.set()
        await asking
        assert admission.admits_partial("s", MUCH) is (priority == "file")
    assert admission.admits_partial("s", 60 * 16_000)


@pytest.mark.usefixtures("no_waits")
async def test_a_final_is_asked_for_until_it_is_answered(triton: StandIn, settings: Callable[..., Settings]) -> None:
    """A final is retried however often Triton fails."""
    triton.answer.set()
    triton.errors = [TritonError("away", is_retriable=True) for _ in range(20)]
    assert await admission_to(triton, settings()).decode_final(SPEECH, REQUEST) == SAID
    assert len(triton.asked) == 21


async def test_a_segment_that_triton_refuses_has_no_text(triton: StandIn, settings: Callable[..., Settings]) -> None:
    """A segment that Triton refuses gets an empty final, and its session goes on."""
    triton.answer.set()
    triton.errors = [TritonError("no such language", is_retriable=False)]
    assert (await admission_to(triton, settings()).decode_final(SPEECH, REQUEST)).text == ""
    assert len(triton.asked) == 1


@pytest.mark.parametrize(("is_retriable", "is_slow"), [(True, True), (False, False)])
async def test_a_partial_is_asked_for_once(
    triton: StandIn, settings: Callable[..., Settings], is_retriable: bool, is_slow: bool
) -> None:
    """A failed partial is not retried. The next ones come later if Triton did not answer, not if it refused one."""
    triton.answer.set()
    triton.errors = [TritonError("no", is_retriable=is_retriable)]
    admission = admission_to(triton, settings())
    assert await admission.decode_partial(SPEECH, REQUEST) is None
    assert admission.admits_partial("another", MUCH) is not is_slow
