"""Streams whose connections are lost, refused or silent deliver the same finals, or fail with the reason."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from loopback import (
    AUDIO,
    SEGMENT_BYTES,
    Faults,
    LoggedSession,
    LoopbackGateway,
    chunks,
    events_of,
    segment_texts,
    serving,
    texts,
)
from whisperline_client import (
    Ack,
    AudioGone,
    Client,
    Closed,
    Disconnected,
    GatewayRefused,
    GatewayUnreachable,
    Resumed,
    RetryPolicy,
)

pytestmark = pytest.mark.usefixtures("small_frames")

QUICK = RetryPolicy(first_delay_s=0.01, max_delay_s=0.02, deadline_s=5.0)


@pytest.mark.parametrize("seed", range(8))
async def test_lost_connections_do_not_change_the_finals(seed: int, faults: Faults) -> None:
    """Lost connections to either of two gateways do not change the finals."""
    chance = random.Random(seed)
    faults.drop_at = sorted(chance.randrange(len(AUDIO) // 2) for _ in range(6))
    log: dict[str, LoggedSession] = {}
    async with serving(LoopbackGateway(log, faults)) as one, serving(LoopbackGateway(log, faults)) as two:
        events = await events_of(Client([one, two], retry=QUICK), chunks(size=chance.randrange(1, 4000)))
    assert texts(events) == segment_texts(AUDIO)
    assert sum(isinstance(event, Disconnected) for event in events) == 6
    assert isinstance(events[-1], Closed)


async def test_resuming_asks_for_the_finals_that_are_missing(gateway: LoopbackGateway, faults: Faults) -> None:
    """A new connection names the session, the latest token and the first final that is missing."""
    faults.drop_at = [2000]
    async with serving(gateway) as url:
        events = await events_of(Client([url], retry=QUICK), chunks(size=SEGMENT_BYTES))
    resumed = next(event for event in events if isinstance(event, Resumed))
    assert "resume_token" not in gateway.queries[0]
    assert gateway.queries[1]["session_id"] == "session-0"
    assert gateway.queries[1]["finals_from"] in ("0", "1", "2")
    assert resumed.position == 2000


async def test_a_connection_lost_while_closing(gateway: LoopbackGateway, faults: Faults) -> None:
    """When the connection drops before the last finals, they come on the next one."""
    faults.drop_at_close = 2
    async with serving(gateway) as url:
        events = await events_of(Client([url], retry=QUICK), chunks())
    assert texts(events) == segment_texts(AUDIO)
    assert isinstance(events[-1], Closed)
    assert events[-1].connection_count == 3


async def test_a_gateway_that_starts_later_than_the_stream(gateway: LoopbackGateway) -> None:
    """A stream begins once a gateway can be reached, and no audio is lost until then."""
    async with serving(gateway) as url:
        port = int(url.rpartition(":")[2])
    async with Client([url], retry=QUICK).stream(chunks()) as stream, asyncio.timeout(30):
        assert isinstance(await anext(stream), Disconnected)
        async with serving(gateway, port):
            events = [event async for event in stream]
    assert texts(events) == segment_texts(AUDIO)


async def test_no_gateway_before_the_deadline(gateway: LoopbackGateway) -> None:
    """After the deadline the stream fails with a retriable error that names the gateway."""
    async with serving(gateway) as url:
        pass
    with pytest.raises(GatewayUnreachable, match=url) as caught:
        await events_of(Client([url], retry=RetryPolicy(0.01, 0.02, start_deadline_s=0.1)), chunks())
    assert caught.value.retriable


@pytest.mark.parametrize(("close_code", "retriable"), [(1008, False), (1012, True)])
async def test_a_refusal(close_code: int, retriable: bool, gateway: LoopbackGateway, faults: Faults) -> None:
    """A permanent refusal ends the stream with its reason; a temporary one is retried until the deadline."""
    faults.refuse = ("TOKEN_EXPIRED", close_code)
    async with serving(gateway) as url:
        with pytest.raises(GatewayUnreachable if retriable else GatewayRefused, match="TOKEN_EXPIRED"):
            await events_of(Client([url], retry=RetryPolicy(0.01, 0.02, start_deadline_s=0.1)), chunks())
    assert (len(gateway.queries) > 1) == retriable


async def test_a_gateway_that_forgot_acknowledged_audio(gateway: LoopbackGateway, faults: Faults) -> None:
    """When a gateway asks for audio that it has already acknowledged, the stream fails rather than leave a gap."""
    acknowledged = asyncio.Event()
    faults.drop_at, faults.forget_bytes = [8000], 3 * SEGMENT_BYTES

    async def halting() -> AsyncIterator[bytes]:
        yield AUDIO[:15_000]
        await acknowledged.wait()
        yield AUDIO[15_000:]

    async with serving(gateway) as url, Client([url], retry=QUICK).stream(halting()) as stream, asyncio.timeout(30):
        while not isinstance(event := await anext(stream), Ack) or event.position < 7500:
            pass
        acknowledged.set()
        with pytest.raises(AudioGone):
            _ = [event async for event in stream]


async def test_a_gateway_that_is_silent_at_the_end(gateway: LoopbackGateway, faults: Faults) -> None:
    """When nothing comes after CloseStream, the client drops the connection and ends the session over the next one."""
    faults.silent_at_close = 1
    async with serving(gateway) as url:
        events = await events_of(Client([url], retry=QUICK, close_timeout_s=0.3), chunks())
    assert texts(events) == segment_texts(AUDIO)
    assert sum(isinstance(event, Disconnected) for event in events) >= 1
