"""The demonstration: real speech in real time through the whole stack, and what PostgreSQL holds of it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from whisperline_client import AudioFile, Client, Event, Final, Stream
from whisperline_client.terminal import clock, show
from whisperline_contracts import Final as StoredFinal
from whisperline_persistence import Store

from whisperline_local.errors import StepFailed
from whisperline_local.stack import Stack

STORED_LIMIT_S = 15.0
POLL_S = 0.1


async def demonstrate(stack: Stack, speech: Path, console: Console) -> None:
    """Stream a file through a running stack, and print the stored rows beside the time that each final took."""
    audio = AudioFile.open(speech)
    console.print(f"\nStreaming {speech.name}, {audio.duration_s:.1f} s of speech, as if it were spoken now\n")
    finals: list[Final] = []
    async with Client(stack.gateway_urls).stream(audio.live(), audio.options()) as stream:
        closed = await show(_noting(stream, finals), console)
    if closed is None or not finals:
        raise StepFailed("the demonstration", "no text came back", hint=f"The logs are in {stack.settings.logs}.")
    stored = await _stored_finals(stack, closed.session_id)
    console.print(f"\nPostgreSQL holds of session {closed.session_id}:", highlight=False)
    console.print(_table(stored, finals))


async def _noting(stream: Stream, finals: list[Final]) -> AsyncIterator[Event]:
    async for event in stream:
        if isinstance(event, Final):
            finals.append(event)
        yield event


async def _stored_finals(stack: Stack, session_id: str) -> list[StoredFinal]:
    """Return the rows once the session's end is stored: persistence follows the log a moment later."""
    try:
        async with asyncio.timeout(STORED_LIMIT_S), Store.open(stack.database_url) as store:
            while not await _is_stored(store, session_id):  # noqa: ASYNC110 - a row that appears sets no event
                await asyncio.sleep(POLL_S)
            return await store.finals(session_id)
    except TimeoutError as error:
        raise StepFailed(
            "storing the session", f"not stored after {STORED_LIMIT_S:.0f} s", log=stack.log("persistence")
        ) from error


async def _is_stored(store: Store, session_id: str) -> bool:
    session = await store.session(session_id)
    return session is not None and session.segment_count is not None


def _table(stored: list[StoredFinal], finals: list[Final]) -> Table:
    delays_s = {final.segment_index: final.delay_s for final in finals}
    table = Table("", "from", "to", "text", "words", "final after", caption="final after: from the end of speech")
    for row in stored:
        delay_s = delays_s.get(row.segment_index)
        table.add_row(
            str(row.segment_index),
            clock(row.start_ms),
            clock(row.end_ms),
            row.text,
            str(len(row.words)),
            "" if delay_s is None else f"{delay_s:.2f} s",
        )
    return table
