"""What waits for a slow client is bounded, and partials go first."""

import asyncio

import pytest
from whisperline_gateway.outbox import Outbox, OutboxFull


async def drained(outbox: Outbox) -> list[object]:
    outbox.close()
    return [message["n"] async for message in _messages(outbox)]


async def _messages(outbox: Outbox):
    while (message := await outbox.next()) is not None:
        yield message


async def test_partials_and_acks_are_replaced_by_newer_ones() -> None:
    """However many come, one partial and one ack wait; the rest is in order and first."""
    outbox = Outbox()
    for n in range(100):
        outbox.put_partial({"n": f"partial {n}"})
        outbox.put_ack({"n": f"ack {n}"})
    outbox.put({"n": "first"})
    outbox.put({"n": "second"})
    assert outbox.dropped_partials == 99
    assert await drained(outbox) == ["first", "second", "partial 99", "ack 99"]


async def test_a_final_takes_its_partial_with_it() -> None:
    """No partial is told after the final of its segment."""
    outbox = Outbox()
    outbox.put_partial({"n": "partial"})
    outbox.drop_partial()
    outbox.put({"n": "final"})
    assert await drained(outbox) == ["final"]


async def test_a_full_outbox_refuses() -> None:
    """What must not be lost is not dropped: the client is too slow to be served."""
    outbox = Outbox(limit=3)
    for n in range(3):
        outbox.put({"n": n})
    with pytest.raises(OutboxFull):
        outbox.put({"n": 3})


async def test_a_sender_of_many_waits_for_room() -> None:
    """A task that can wait goes on when half the limit is free."""
    outbox = Outbox(limit=4)
    for n in range(3):
        outbox.put({"n": n})
    waiting = asyncio.create_task(outbox.room())
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
    outbox.put({"n": 1})
    assert await waiting == {"n": 1}
