"""A client learns which audio is durable, soon and not too often."""

import asyncio
import time

from harness import PATIENCE_S
from whisperline_contracts import StreamOptions
from whisperline_gateway.connection.acks import AckSender
from whisperline_gateway.connection.outbox import Outbox
from whisperline_gateway.protocol.messages import Ack
from whisperline_gateway.protocol.tokens import SignedSession, TokenIssuer, verify

SECRET = b"a secret of some length"
SESSION = SignedSession(session_id="s", client_id="o", sample_rate=16_000, channels=1, options=StreamOptions())


def sender(outbox: Outbox, interval_s: float, position: int = 0) -> AckSender:
    return AckSender(outbox, TokenIssuer(SESSION, SECRET), 16_000, position, interval_s)


async def next_ack(outbox: Outbox) -> Ack:
    async with asyncio.timeout(PATIENCE_S):
        envelope = await outbox.next()
    assert envelope is not None
    assert isinstance(envelope.message, Ack)
    return envelope.message


async def is_empty(outbox: Outbox) -> bool:
    outbox.close()
    return await outbox.next() is None


async def test_the_first_ack_is_sent_at_once_with_a_token_for_its_position() -> None:
    """A client may forget the audio before an Ack, because the token resumes from there."""
    outbox = Outbox()
    acks = sender(outbox, interval_s=3_600)
    acks.acknowledge(1_600)
    ack = await next_ack(outbox)
    token = verify(ack.resume_token, SECRET, session_id="s", now_s=time.time(), lifetime_s=60)
    assert ack.position == token.position == 1_600
    acks.stop()


async def test_within_the_interval_positions_are_gathered() -> None:
    """The next Ack comes when the interval is over, for everything that became durable meanwhile."""
    outbox = Outbox()
    acks = sender(outbox, interval_s=0.02)
    began_s = time.monotonic()
    for position in (100, 200, 300, 400):
        acks.acknowledge(position)
    assert (await next_ack(outbox)).position == 100
    assert (await next_ack(outbox)).position == 400
    assert time.monotonic() - began_s >= 0.02
    acks.stop()


async def test_a_flush_does_not_wait_for_the_interval() -> None:
    """Before a connection closes, what is durable is acknowledged; nothing is acknowledged twice."""
    outbox = Outbox()
    acks = sender(outbox, interval_s=3_600)
    acks.acknowledge(100)
    acks.acknowledge(200)
    assert (await next_ack(outbox)).position == 100
    acks.flush()
    assert (await next_ack(outbox)).position == 200
    acks.flush()
    assert await is_empty(outbox)
    acks.stop()


async def test_nothing_is_sent_for_what_the_client_knows() -> None:
    """A resumed connection begins at the position that the client was told."""
    outbox = Outbox()
    acks = sender(outbox, interval_s=0, position=500)
    acks.acknowledge(500)
    acks.stop()
    assert await is_empty(outbox)


async def test_a_sender_that_is_stopped_sends_nothing_by_itself() -> None:
    """No timer outlives the connection."""
    outbox = Outbox()
    acks = sender(outbox, interval_s=0)
    acks.acknowledge(100)
    acks.acknowledge(200)
    acks.stop()
    assert (await next_ack(outbox)).position == 100
    await asyncio.sleep(0.01)  # longer than the interval
    assert await is_empty(outbox)
