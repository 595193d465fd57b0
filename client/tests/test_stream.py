"""Streams whose connection is never lost: audio, events, failures of the source, the end of a stream."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from loopback import AUDIO, SEGMENT_BYTES, Faults, LoopbackGateway, chunks, events_of, segment_texts, serving, texts
from whisperline_client import AudioError, Client, Closed, Event, Final, Finalized, Started

pytestmark = pytest.mark.usefixtures("small_frames")


async def test_an_undisturbed_stream(gateway: LoopbackGateway) -> None:
    """Every final comes once, in order, and the last event closes the session."""
    async with serving(gateway) as url:
        events = await events_of(Client([url]), chunks())
    assert isinstance(events[0], Started)
    assert texts(events) == segment_texts(AUDIO)
    assert events[-1] == Closed("session-0", round(len(AUDIO) / 32), segment_count=21, connection_count=1)


async def test_the_buffer_is_bounded(gateway: LoopbackGateway, faults: Faults) -> None:
    """Without acknowledgements the source is read no further than the buffer's limit, and goes on with them."""
    faults.acknowledge.clear()
    taken = bytearray()

    async def counted() -> AsyncIterator[bytes]:
        async for chunk in chunks():
            taken.extend(chunk)
            yield chunk

    async with serving(gateway) as url:
        limit_s = 0.25
        async with Client([url], buffer_s=limit_s).stream(counted()) as stream, asyncio.timeout(30):
            assert [final.segment_index async for final in _until_finals(stream, 5)] == [0, 1, 2, 3, 4]
            assert len(taken) <= limit_s * 32_000 + 2 * 500
            faults.acknowledge.set()


async def _until_finals(stream: AsyncIterator[Event], count: int) -> AsyncIterator[Final]:
    async for event in stream:
        if isinstance(event, Final):
            yield event
            count -= 1
        if not count:
            return


async def test_silence_of_the_source(gateway: LoopbackGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the source yields nothing, the client sends keep-alives."""
    monkeypatch.setattr("whisperline_client.client.KEEP_ALIVE_S", 0.01)
    arrived = asyncio.Event()
    gateway.controls = _Noting(arrived)

    async def paused() -> AsyncIterator[bytes]:
        yield AUDIO[:SEGMENT_BYTES]
        await arrived.wait()
        yield AUDIO[SEGMENT_BYTES:]

    async with serving(gateway) as url:
        events = await events_of(Client([url]), paused())
    assert texts(events) == segment_texts(AUDIO)
    assert gateway.controls[0] == "KeepAlive"


class _Noting(list[str]):
    def __init__(self, arrived: asyncio.Event) -> None:
        super().__init__()
        self._arrived = arrived

    def append(self, kind: str) -> None:
        super().append(kind)
        self._arrived.set()


async def test_finalize(gateway: LoopbackGateway) -> None:
    """Finalize goes out after the audio appended before it, and its answer is an event."""
    more = asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield AUDIO[:SEGMENT_BYTES]
        await more.wait()

    async with serving(gateway) as url, Client([url]).stream(halting()) as stream, asyncio.timeout(30):
        async for event in stream:
            if isinstance(event, Final):
                stream.finalize()
            if isinstance(event, Finalized):
                more.set()
    assert gateway.controls == ["Finalize", "CloseStream"]


async def test_ending_the_audio(gateway: LoopbackGateway) -> None:
    """A stream whose source would never end is closed by `end_audio`, with every final of the audio read so far."""

    async def endless() -> AsyncIterator[bytes]:
        yield AUDIO[: 2 * SEGMENT_BYTES]
        await asyncio.Event().wait()

    async with serving(gateway) as url, Client([url]).stream(endless()) as stream, asyncio.timeout(30):
        events = []
        async for event in stream:
            events.append(event)
            if isinstance(event, Final):
                stream.end_audio()
    assert texts(events) == segment_texts(AUDIO[: 2 * SEGMENT_BYTES])
    assert isinstance(events[-1], Closed)


async def test_a_source_that_fails(gateway: LoopbackGateway) -> None:
    """When the source of audio fails, iteration raises an error with its reason."""

    async def broken() -> AsyncIterator[bytes]:
        yield AUDIO[:100]
        raise OSError("unplugged")

    async with serving(gateway) as url:
        with pytest.raises(AudioError, match="unplugged"):
            await events_of(Client([url]), broken())


async def test_leaving_early(gateway: LoopbackGateway) -> None:
    """Leaving the block ends every task of the stream."""
    before = asyncio.all_tasks()
    async with serving(gateway) as url, Client([url]).stream(chunks()) as stream:
        await anext(stream)
    leftover = {task for task in asyncio.all_tasks() - before if "whisperline" in task.get_name()}
    assert not leftover


async def test_an_end_that_takes_long(gateway: LoopbackGateway, faults: Faults) -> None:
    """After CloseStream the client waits as long as messages keep coming, however long that takes in total."""
    faults.pauses_at_close = [1.0] * 4
    async with serving(gateway) as url:
        events = await events_of(Client([url], close_timeout_s=2.5), chunks())
    assert isinstance(events[-1], Closed)
    assert events[-1].connection_count == 1
