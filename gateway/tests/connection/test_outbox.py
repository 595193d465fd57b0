"""What waits for a slow client is bounded, and partials go first."""

import asyncio

import pytest
from whisperline_gateway.connection.outbox import Outbox
from whisperline_gateway.errors import OutboxFullError
from whisperline_gateway.protocol.messages import UnknownMessage


def message(text: object) -> UnknownMessage:
    return UnknownMessage(str(text))


async def drained(outbox: Outbox) -> list[str]:
    outbox.close()
    texts = []
    while (envelope := await outbox.next()) is not None:
        assert isinstance(envelope.message, UnknownMessage)
        texts.append(envelope.message.text)
    return texts


async def test_partials_and_acks_are_replaced_by_newer_ones() -> None:
    """However many come, one partial and one Ack wait; the rest is in order and first."""
    outbox = Outbox()
    for n in range(100):
        outbox.put_partial(message(f"partial {n}"))
        outbox.put_ack(message(f"ack {n}"))
    outbox.put(message("first"))
    outbox.put(message("second"))
    assert outbox.dropped_partials == 99
    assert await drained(outbox) == ["first", "second", "partial 99", "ack 99"]


async def test_the_last_message_comes_after_the_ack_that_waits() -> None:
    """A client that has read the summary of its session has nothing more to expect."""
    outbox = Outbox()
    outbox.put_ack(message("ack"))
    outbox.put(message("final"))
    outbox.put_last(message("summary"))
    assert await drained(outbox) == ["final", "ack", "summary"]


async def test_a_final_takes_its_partial_with_it() -> None:
    """No partial is sent after the final of its segment."""
    outbox = Outbox()
    outbox.put_partial(message("partial"))
    outbox.drop_partial()
    outbox.put(message("final"))
    assert await drained(outbox) == ["final"]


async def test_a_full_outbox_refuses() -> None:
    """Messages that must not be lost are not dropped: a full outbox raises an error."""
    outbox = Outbox(limit=3)
    for n in range(3):
        outbox.put(message(n))
    with pytest.raises(OutboxFullError):
        outbox.put(message(3))


async def test_a_closed_outbox_takes_no_more() -> None:
    """A closed outbox ignores new messages."""
    outbox = Outbox()
    outbox.put(message("before"))
    outbox.close()
    outbox.put(message("after"))
    assert await drained(outbox) == ["before"]


async def test_a_sender_of_many_waits_for_space() -> None:
    """A task that can wait goes on when half the limit is free."""
    outbox = Outbox(limit=4)
    for n in range(3):
        outbox.put(message(n))
    waiting = asyncio.create_task(outbox.wait_for_space())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.next()
    await outbox.next()
    await waiting


async def test_a_writer_waits_for_the_next_message() -> None:
    """An empty outbox that is open blocks its writer until something comes."""
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put(message(1))
    envelope = await waiting
    assert envelope is not None
    assert envelope.message == message(1)
