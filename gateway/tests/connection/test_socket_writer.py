"""The end of a connection, to a client that reads and to one that hardly does."""

import asyncio

import pytest
from fakes import FakePeer
from whisperline_gateway import errors
from whisperline_gateway.connection.outbox import Outbox, SocketWriter
from whisperline_gateway.errors import ClientDisconnectedError, ClientError
from whisperline_gateway.protocol.messages import UnknownMessage

TIMEOUT_S = 0.2


async def close(peer: FakePeer, count: int, failure: ClientError | None = None) -> None:
    """Close a connection for which so many messages wait."""
    outbox = Outbox()
    for _ in range(count):
        outbox.put(UnknownMessage("{}"))
    async with SocketWriter(peer, outbox, TIMEOUT_S, lambda _: None) as writer:
        await writer.close(failure)


async def failure_of(peer: FakePeer) -> Exception:
    """Let one message wait for a client that does not take it; return what the writer reports."""
    loop, outbox = asyncio.get_running_loop(), Outbox()
    failed: asyncio.Future[Exception] = loop.create_future()
    outbox.put(UnknownMessage("{}"))
    async with SocketWriter(peer, outbox, TIMEOUT_S, failed.set_result) as writer:
        error = await failed
        began_s = loop.time()
        await writer.close(None)
        assert loop.time() - began_s < TIMEOUT_S
    return error


async def test_what_is_left_is_written_before_the_close() -> None:
    """A client that reads receives everything, then the error, then the close frame."""
    peer, failure = FakePeer(), errors.not_durable()
    await close(peer, 100, failure)
    assert len(peer.sent) == 101
    assert peer.sent[-1] is peer.closed_with is failure
    assert not peer.aborted


@pytest.mark.parametrize("peer_options", [{"pause_s": TIMEOUT_S / 2}, {"takes_close": False}])
async def test_a_client_that_takes_too_long_is_dropped(peer_options: dict[str, float]) -> None:
    """Neither one that takes each message just in time, nor one that does not take the close, is waited for."""
    peer = FakePeer(pause_s=peer_options.get("pause_s", 0), takes_close="takes_close" not in peer_options)
    await close(peer, 10)
    assert peer.aborted
    assert not peer.is_closed


async def test_a_client_that_takes_no_message_is_too_slow() -> None:
    """The connection learns it, and the socket is dropped at the close without another wait."""
    peer = FakePeer(pause_s=3_600)
    error = await failure_of(peer)
    assert isinstance(error, ClientError)
    assert error.code == "SLOW_CLIENT"
    assert peer.aborted


async def test_a_client_that_has_gone_is_noticed_by_writing() -> None:
    """A message that cannot be written ends the writing."""
    peer = FakePeer()
    peer.disconnect()
    assert isinstance(await failure_of(peer), ClientDisconnectedError)
