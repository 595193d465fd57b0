"""A client gets every final once and in order, and nothing that it did not ask for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from fakes import MemoryStore
from harness import (
    PATIENCE_S,
    final,
    finalized,
    partial,
    resumed,
    session_end,
    speech_started,
    until,
    utterance_end,
)
from whisperline_contracts import Event, Final
from whisperline_gateway.connection.downlink import Downlink
from whisperline_gateway.connection.outbox import Outbox
from whisperline_gateway.errors import OutboxFullError
from whisperline_gateway.protocol.messages import ServerMessage
from whisperline_persistence import StoreRefusedError, StoreUnavailableError


@dataclass(frozen=True)
class Ids:
    session_id: str = "s"
    connection_id: str = "mine"
    client_id: str = "o"


MINE = Ids()


class Client:
    """A downlink and what it has sent."""

    def __init__(self, *, interim_results: bool = False, vad_events: bool = False, limit: int = 256) -> None:
        self.store = MemoryStore()
        self.outbox = Outbox(limit)
        self.downlink = Downlink(
            "s", "mine", self.outbox, self.store, interim_results=interim_results, vad_events=vad_events
        )

    def hears(self, *events: Event) -> None:
        for event in events:
            self.downlink.on_event(event)

    async def next(self) -> ServerMessage:
        async with asyncio.timeout(PATIENCE_S):
            envelope = await self.outbox.next()
        assert envelope is not None
        return envelope.message

    async def rest(self) -> list[ServerMessage]:
        """Everything that waits; the outbox is closed then."""
        self.outbox.close()
        messages = []
        while (envelope := await self.outbox.next()) is not None:
            messages.append(envelope.message)
        return messages

    @asynccontextmanager
    async def filling(self) -> AsyncIterator[None]:
        """Let gaps be filled from the database."""
        task = asyncio.create_task(self.downlink.fill_gaps())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def indices(messages: list[ServerMessage]) -> list[int]:
    return [message.segment_index for message in messages if isinstance(message, Final)]


async def test_only_finals_are_sent_unless_more_is_asked_for() -> None:
    """Speech and partials are for clients that want them; a Finalize is answered in any case."""
    client = Client()
    client.downlink.start()
    client.hears(speech_started(MINE, 0, 320), partial(MINE, 0, "wor"), final(MINE, 0), finalized(MINE, 950))
    assert await client.rest() == [final(MINE, 0), finalized(MINE, 950)]


async def test_a_replay_brings_nothing_new() -> None:
    """A transcriber that replays the log publishes events again, and late ones; the client sees each once."""
    client = Client(interim_results=True, vad_events=True)
    client.downlink.start()
    once: list[Event] = [speech_started(MINE, 0, 320), final(MINE, 0), utterance_end(MINE, 900)]
    client.hears(*once, partial(MINE, 0, "late"), *once)
    assert await client.rest() == once


async def test_a_partial_is_replaced_by_its_final() -> None:
    """A partial that still waits when its final comes is not sent."""
    client = Client(interim_results=True)
    client.downlink.start()
    client.hears(partial(MINE, 0, "wor"), final(MINE, 0), partial(MINE, 1, "nex"))
    assert await client.rest() == [final(MINE, 0), partial(MINE, 1, "nex")]


async def test_finals_that_did_not_come_are_read_from_the_database() -> None:
    """Later finals wait for them, however late they are stored."""
    client = Client()
    client.downlink.start()
    async with client.filling():
        client.hears(final(MINE, 2))
        await until(lambda: len(client.store.queries) >= 2)  # they are not stored yet
        assert client.store.queries[0] == (0, 2)
        client.store.store(final(MINE, 0), final(MINE, 1))
        assert indices([await client.next() for _ in range(3)]) == [0, 1, 2]


async def test_a_database_that_is_away_is_asked_again() -> None:
    """Missing finals are sent when the database is reachable again."""
    client = Client()
    client.store.error = StoreUnavailableError("it restarts")
    client.downlink.start()
    async with client.filling():
        client.hears(final(MINE, 1))
        await until(lambda: client.store.queries)
        client.store.store(final(MINE, 0))
        client.store.error = None
        assert indices([await client.next() for _ in range(2)]) == [0, 1]


async def test_a_database_that_refuses_is_an_error() -> None:
    """An error that retrying cannot mend ends the filling of gaps."""
    client = Client()
    client.store.error = StoreRefusedError("no such table")
    client.downlink.start()
    client.hears(final(MINE, 1))
    with pytest.raises(StoreRefusedError):
        await client.downlink.fill_gaps()


async def test_a_resumed_client_gets_what_it_missed_first() -> None:
    """Before the start nothing is sent; then the missed finals, then those that came meanwhile."""
    client = Client()
    client.store.store(*(final(MINE, index) for index in range(4)))
    async with client.filling():
        client.hears(resumed(MINE, 32_000, 3), final(MINE, 3))
        client.downlink.start(finals_from=1)
        assert indices([await client.next() for _ in range(3)]) == [1, 2, 3]
    assert await client.rest() == []


async def test_the_answer_to_resume_says_where_the_audio_ends() -> None:
    """A connection ignores the answer to the RESUME of another connection."""
    client = Client()
    client.hears(resumed(Ids(connection_id="another"), 1, 0))
    assert await client.downlink.durable_position(16_000, timeout_s=0) == 0
    client.hears(resumed(MINE, 32_000, 0))
    assert await client.downlink.durable_position(16_000, timeout_s=PATIENCE_S) == 32_000


async def test_a_session_that_has_ended_says_where_its_audio_ends() -> None:
    """The end of the session answers a RESUME, too."""
    client = Client()
    client.hears(session_end(MINE, 2, 2_500))
    assert client.downlink.answer.done()
    assert await client.downlink.durable_position(16_000, timeout_s=PATIENCE_S) == 40_000


async def test_the_end_is_there_when_the_last_final_is_sent() -> None:
    """A session that has ended is not complete while finals are missing."""
    client = Client()
    client.downlink.start()
    waiting = asyncio.create_task(client.downlink.wait_for_end(PATIENCE_S))
    client.hears(final(MINE, 0))
    await asyncio.sleep(0)
    client.hears(session_end(MINE, 2, 2_000))
    await asyncio.sleep(0)
    assert not waiting.done()
    client.hears(final(MINE, 1))
    assert await waiting


async def test_without_news_the_end_is_not_waited_for() -> None:
    """A transcriber that says nothing more does not hold a connection for ever."""
    client = Client()
    client.downlink.start()
    assert not await client.downlink.wait_for_end(0.01)


async def test_a_client_that_does_not_read_its_finals_is_too_slow() -> None:
    """Finals are not dropped: when too many wait, the connection must end."""
    client = Client(limit=2)
    client.downlink.start()
    client.hears(final(MINE, 0), final(MINE, 1))
    with pytest.raises(OutboxFullError):
        client.hears(final(MINE, 2))
