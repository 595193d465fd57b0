"""What is written, in which order, while the log takes its time: the test says when a record is durable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_gateway.uplink import Pace, Uplink

PATIENCE_S = 30.0
AT_ONCE = Pace(flush_s=0, heartbeat_s=60, in_flight_bytes=2_048)


class HeldLog:
    """A log that has a record when the test says so."""

    def __init__(self) -> None:
        self.generation = 0
        self.kinds: list[AudioKind] = []
        self.futures: list[asyncio.Future[object]] = []
        self._news = asyncio.Condition()

    async def append(self, chunk: AudioChunk) -> "asyncio.Future[object]":
        async with self._news:
            self.kinds.append(chunk.kind)
            self.futures.append(asyncio.get_running_loop().create_future())
            self._news.notify_all()
        return self.futures[-1]

    async def until(self, count: int) -> None:
        """Wait for so many records."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.kinds) >= count)

    def settle(self) -> None:
        """Make all records durable."""
        for future in self.futures:
            if not future.done():
                future.set_result(None)


@pytest.fixture
def log() -> HeldLog:
    return HeldLog()


@asynccontextmanager
async def opened(log: HeldLog) -> AsyncIterator[Uplink]:
    """An uplink whose START is durable and whose audio flows."""
    uplink = new_uplink(log)
    opening = asyncio.create_task(uplink.open(AudioKind.START))
    await log.until(1)
    log.settle()
    assert await opening
    uplink.begin(0)
    yield uplink
    await uplink.close()


def new_uplink(log: HeldLog) -> Uplink:
    template = AudioChunk(
        session_id="s", connection_id="c", client_id="o", kind=AudioKind.AUDIO, sequence=0, position=0,
        sample_rate=16_000, reply_partition=0,
    )  # fmt: skip
    return Uplink(log, template, AT_ONCE, lambda _: None, lambda: None)


async def test_what_is_queued_before_the_start_is_durable_does_not_hold_it_up(log: HeldLog) -> None:
    """A Finalize that comes first waits for START, and START not for it."""
    uplink = new_uplink(log)
    opening = asyncio.create_task(uplink.open(AudioKind.START))
    await log.until(1)
    uplink.finalize()
    log.settle()
    async with asyncio.timeout(PATIENCE_S):
        assert await opening
    uplink.begin(0)
    await log.until(2)
    assert log.kinds == [AudioKind.START, AudioKind.FINALIZE]
    await uplink.close()


async def test_a_flood_of_finalize_waits_for_room(log: HeldLog) -> None:
    """One behind another is the same; with audio between them they count as much as audio does."""
    async with opened(log) as uplink:
        for _ in range(1_000):
            uplink.finalize()
        assert uplink.has_room
        for _ in range(3):
            uplink.write(bytes(2))
            uplink.finalize()
        assert not uplink.has_room
        await log.until(8)
        log.settle()
        async with asyncio.timeout(PATIENCE_S):
            assert await uplink.drained()
        assert uplink.has_room
        assert log.kinds == [AudioKind.START, *[AudioKind.FINALIZE, AudioKind.AUDIO] * 3, AudioKind.FINALIZE]


async def test_a_new_producer_does_not_overtake_the_one_before(log: HeldLog) -> None:
    """What the failed producer still holds is durable before anything goes through the new one."""
    async with opened(log) as uplink:
        uplink.write(bytes(2))
        await log.until(2)
        log.generation = 1
        uplink.write(bytes(2))
        uplink.end()
        for _ in range(10):
            await asyncio.sleep(0)  # the uplink has its turns
        assert len(log.kinds) == 2
        log.settle()
        await log.until(4)
        assert log.kinds[2:] == [AudioKind.AUDIO, AudioKind.END]


async def test_what_the_failed_producer_loses_is_followed_by_nothing(log: HeldLog) -> None:
    """When a record is lost with its producer, no later one of the connection is written."""
    async with opened(log) as uplink:
        uplink.write(bytes(2))
        await log.until(2)
        log.generation = 1
        uplink.write(bytes(2))
        log.futures[1].cancel()
        async with asyncio.timeout(PATIENCE_S):
            assert not await uplink.drained()
        assert len(log.kinds) == 2
