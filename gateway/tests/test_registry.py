"""Which connections are admitted, who gets a session's events, and how long a session waits for its client."""

import asyncio

import pytest
from fakes import HeldLog, Scene
from harness import PATIENCE_S, final, settings, until
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_gateway.connection.connection import Connection
from whisperline_gateway.connection.uplink import Uplink, UplinkLimits, UplinkPhase
from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.messages import SessionStarted
from whisperline_gateway.registry import Registry

START = AudioChunk(
    session_id="s", connection_id="c", client_id="o", kind=AudioKind.START, sequence=0, position=0, sample_rate=16_000,
    reply_partition=0,
)  # fmt: skip


async def open_uplink(log: HeldLog) -> Uplink:
    limits = UplinkLimits(flush_s=0, heartbeat_s=60, in_flight_bytes=1_024)
    uplink = Uplink(log, START, limits, lambda _: None, lambda: None)
    assert await uplink.open(AudioKind.START)
    return uplink


def connection() -> Connection:
    return Scene().connect()


async def test_connections_are_counted_and_limited() -> None:
    """A client beyond the limit is asked to try again; a connection that ends makes room for another."""
    registry = Registry(settings(max_connections=1))
    with registry.admit(connection()):
        assert registry.connection_count == 1
        with pytest.raises(ClientError) as caught, registry.admit(connection()):
            pass
        assert caught.value.code == "OVERLOADED"
    with registry.admit(connection()):
        pass
    assert registry.connection_count == 0


async def test_sessions_without_a_client_take_places() -> None:
    """Connections and detached sessions together may be twice the limit."""
    registry, log = Registry(settings(max_connections=1)), HeldLog(durable=True)
    for session_id in ("one", "two"):
        registry.detach(session_id, await open_uplink(log), grace_s=60)
    with pytest.raises(ClientError) as caught, registry.admit(connection()):
        pass
    assert caught.value.code == "OVERLOADED"
    await registry.close()


async def test_a_gateway_that_drains_admits_nobody() -> None:
    """A client that connects to a draining gateway is asked to connect to another one."""
    registry = Registry(settings())
    await registry.drain()
    with pytest.raises(ClientError) as caught, registry.admit(connection()):
        pass
    assert caught.value.code == "RESTARTING"


async def test_events_go_to_the_newest_connection_of_their_session() -> None:
    """A newer connection supersedes the older one, which gets no more events. Unknown sessions' events are dropped."""
    registry = Registry(settings())
    scene = Scene(acks=True)
    async with scene.running() as (older, _):
        await registry.attach(older)
        await scene.peer.until_sent(SessionStarted)
        registry.route(final(START, 0))
        await scene.peer.until_sent(type(final(START, 0)))
        await registry.attach(connection())
        registry.route(final(START, 1))
    assert scene.end_code() == "SUPERSEDED"
    assert len([message for message in scene.peer.sent if isinstance(message, type(final(START, 0)))]) == 1


async def test_a_session_is_ended_when_its_grace_is_over() -> None:
    """END is written once, and its uplink is closed."""
    registry, log = Registry(settings()), HeldLog(durable=True)
    uplink = await open_uplink(log)
    registry.detach("s", uplink, grace_s=0.01)
    await log.until_kind(AudioKind.END)
    await until(lambda: uplink.phase is UplinkPhase.CLOSED)
    assert log.kinds == [AudioKind.START, AudioKind.END]


async def test_a_session_that_is_resumed_in_its_grace_is_not_ended() -> None:
    """The newer connection has an uplink of its own; the one that waited is closed."""
    registry, log = Registry(settings()), HeldLog(durable=True)
    uplink = await open_uplink(log)
    registry.detach("s", uplink, grace_s=60)
    async with asyncio.timeout(PATIENCE_S):
        await registry.attach(connection())
    assert uplink.phase is UplinkPhase.CLOSED
    assert log.kinds == [AudioKind.START]


async def test_a_gateway_that_stops_ends_only_sessions_that_nobody_can_resume() -> None:
    """Closing the registry does not end sessions in their grace: another gateway may resume them."""
    registry, resumable, over = Registry(settings()), HeldLog(durable=True), HeldLog(durable=True)
    registry.detach("resumable", await open_uplink(resumable), grace_s=60)
    registry.detach("over", await open_uplink(over), grace_s=0)
    await registry.close()
    assert resumable.kinds == [AudioKind.START]
    assert over.kinds == [AudioKind.START, AudioKind.END]
