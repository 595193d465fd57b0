"""What is written, in which order, while the log takes its time: the test says when a record is durable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import KafkaTimeoutError
from fakes import HeldLog
from harness import PATIENCE_S
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_contracts.topics import MAX_AUDIO_BYTES
from whisperline_gateway.connection.uplink import Uplink, UplinkLimits, UplinkPhase

AT_ONCE = UplinkLimits(flush_s=0, heartbeat_s=60, in_flight_bytes=2_048)


@pytest.fixture
def log() -> HeldLog:
    return HeldLog()


class Reports:
    """What an uplink reports to its connection."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.failures = 0

    def durable(self, position: int) -> None:
        self.positions.append(position)

    def failed(self) -> None:
        self.failures += 1


def new_uplink(
    log: HeldLog, reports: Reports | None = None, limits: UplinkLimits = AT_ONCE, position: int = 0
) -> Uplink:
    template = AudioChunk(
        session_id="s", connection_id="c", client_id="o", kind=AudioKind.AUDIO, sequence=0, position=position,
        sample_rate=16_000, reply_partition=0,
    )  # fmt: skip
    reports = reports or Reports()
    return Uplink(log, template, limits, reports.durable, reports.failed)


@asynccontextmanager
async def opened(log: HeldLog, reports: Reports | None = None, limits: UplinkLimits = AT_ONCE) -> AsyncIterator[Uplink]:
    """An uplink whose START is durable."""
    uplink = new_uplink(log, reports, limits)
    opening = asyncio.create_task(uplink.open(AudioKind.START))
    await log.until(1)
    log.settle()
    assert await opening
    yield uplink
    await uplink.close()


async def test_audio_is_gathered_and_a_control_is_not_held_up() -> None:
    """A piece of audio that comes alone is written at once, further ones together; a FINALIZE does not wait."""
    log = HeldLog()
    async with opened(log, limits=UplinkLimits(flush_s=3_600, heartbeat_s=7_200, in_flight_bytes=2_048)) as uplink:
        uplink.write(bytes(2))
        await log.until(2)
        uplink.write(bytes(4))
        await asyncio.sleep(0)
        uplink.write(bytes(6))
        uplink.finalize()
        await log.until(4)
        sent = [(chunk.kind, len(chunk.data)) for chunk in log.chunks]
    assert sent == [
        (AudioKind.START, 0),
        (AudioKind.AUDIO, 2),
        (AudioKind.AUDIO, 10),
        (AudioKind.FINALIZE, 0),
    ]


async def test_the_phases_of_an_uplink() -> None:
    """An uplink opens with its first durable record, ends once, and is closed last."""
    log = HeldLog()
    uplink = new_uplink(log)
    opening = asyncio.create_task(uplink.open(AudioKind.START))
    await log.until(1)
    phases = [uplink.phase]
    log.settle()
    assert await opening
    phases.append(uplink.phase)
    uplink.end()
    uplink.end()
    uplink.write(bytes(2))
    uplink.finalize()
    phases.append(uplink.phase)
    await log.until(2)
    log.settle()
    assert await uplink.flush()
    assert log.kinds == [AudioKind.START, AudioKind.END]
    await uplink.close()
    assert phases == [UplinkPhase.OPENING, UplinkPhase.FLOWING, UplinkPhase.ENDED]
    assert uplink.phase is UplinkPhase.CLOSED
    assert not await uplink.flush()


async def test_what_is_queued_before_the_start_is_durable_does_not_hold_it_up(log: HeldLog) -> None:
    """A Finalize that comes first is written behind START, and START does not wait for it."""
    uplink = new_uplink(log)
    opening = asyncio.create_task(uplink.open(AudioKind.START))
    await log.until(1)
    uplink.finalize()
    log.settle(1)
    async with asyncio.timeout(PATIENCE_S):
        assert await opening
    await log.until(2)
    assert log.kinds == [AudioKind.START, AudioKind.FINALIZE]
    await uplink.close()


async def test_audio_goes_on_where_the_transcriber_says(log: HeldLog) -> None:
    """A resumed connection writes RESUME at its token's position, and audio from the answer's position on."""
    reports = Reports()
    uplink = new_uplink(log, reports, position=100)
    opening = asyncio.create_task(uplink.open(AudioKind.RESUME))
    await log.until(1)
    log.settle()
    assert await opening
    uplink.rebase(250)
    uplink.write(bytes(20))
    await log.until(2)
    log.settle()
    assert await uplink.flush()
    assert [(chunk.kind, chunk.position, chunk.sequence) for chunk in log.chunks] == [
        (AudioKind.RESUME, 100, 0), (AudioKind.AUDIO, 250, 1),
    ]  # fmt: skip
    assert reports.positions == [260]
    await uplink.close()


async def test_audio_is_gathered_and_cut_at_the_limit_of_a_record(log: HeldLog) -> None:
    """Small pieces share a record; no record has more audio than the topic takes, and no sample is cut."""
    async with opened(log) as uplink:
        for _ in range(10):
            uplink.write(bytes(20))
        await log.until(2)
        assert len(log.chunks[1].data) == 200
        uplink.write(bytes(MAX_AUDIO_BYTES + 1_000))
        await log.until(4)
        assert [len(chunk.data) for chunk in log.chunks[2:]] == [MAX_AUDIO_BYTES // 2 * 2, 1_000]
        assert log.chunks[3].position == log.chunks[2].position + log.chunks[2].samples


async def test_a_quiet_uplink_shows_that_it_lives(log: HeldLog) -> None:
    """An uplink without audio writes empty records until it has ended."""
    async with opened(log, limits=UplinkLimits(flush_s=0, heartbeat_s=0.01, in_flight_bytes=2_048)) as uplink:
        await log.until(3)
        assert {(chunk.kind, chunk.data) for chunk in log.chunks[1:]} == {(AudioKind.AUDIO, b"")}
        uplink.end()
        await log.until_kind(AudioKind.END)
        log.settle()
        assert await uplink.flush()
        assert log.kinds[-1] is AudioKind.END


async def test_a_flood_of_finalize_waits_for_space(log: HeldLog) -> None:
    """Two in a row are one; with audio between them they count as much as audio does."""
    async with opened(log) as uplink:
        for _ in range(1_000):
            uplink.finalize()
        assert uplink.has_space
        for _ in range(3):
            uplink.write(bytes(2))
            uplink.finalize()
        assert not uplink.has_space
        await log.until(8)
        log.settle()
        async with asyncio.timeout(PATIENCE_S):
            assert await uplink.flush()
        assert uplink.has_space
        assert log.kinds == [AudioKind.START, *[AudioKind.FINALIZE, AudioKind.AUDIO] * 3, AudioKind.FINALIZE]


async def test_a_writer_without_space_goes_on_when_audio_is_durable(log: HeldLog) -> None:
    """Space is what Kafka has acknowledged, not what it was given."""
    async with opened(log) as uplink:
        uplink.write(bytes(2_048))
        waiting = asyncio.create_task(uplink.wait_for_space())
        await log.until(2)
        assert not waiting.done()
        log.settle()
        async with asyncio.timeout(PATIENCE_S):
            assert await waiting


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
        assert len(log.chunks) == 2
        log.settle()
        await log.until(4)
        assert log.kinds[2:] == [AudioKind.AUDIO, AudioKind.END]


async def test_what_the_failed_producer_loses_is_followed_by_nothing(log: HeldLog) -> None:
    """When a record is lost with its producer, no later one of the connection is written, and the connection knows."""
    reports = Reports()
    async with opened(log, reports) as uplink:
        uplink.write(bytes(2))
        await log.until(2)
        log.generation = 1
        uplink.write(bytes(2))
        log.futures[1].set_exception(KafkaTimeoutError())
        async with asyncio.timeout(PATIENCE_S):
            assert not await uplink.flush()
        assert len(log.chunks) == 2
        assert uplink.phase is UplinkPhase.FAILED
        assert reports.failures == 1


async def test_an_uplink_that_is_closed_reports_nothing_more(log: HeldLog) -> None:
    """A closed uplink reports neither records that become durable later nor records that are lost."""
    reports = Reports()
    async with opened(log, reports) as uplink:
        uplink.write(bytes(2))
        uplink.finalize()
        await log.until(3)
    log.settle(2)
    log.futures[2].set_exception(KafkaTimeoutError())
    await asyncio.sleep(0)
    assert (reports.positions, reports.failures) == ([], 0)
