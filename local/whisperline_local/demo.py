"""The demonstration: real speech in real time through the whole stack, and what PostgreSQL holds of it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from whisperline_client import AudioFile, Client, Event, Final
from whisperline_client.terminal import clock, show
from whisperline_contracts import Final as StoredFinal
from whisperline_persistence import Store

from whisperline_local.errors import StepFailed
from whisperline_local.stack import Stack

STORED_LIMIT_S = 15.0
POLL_S = 0.1


async def demonstrate(stack: Stack, speech: Path, console: Console) -> None:
    """Stream a file through a running stack; print the stored rows with the delay of each final."""
    audio = AudioFile.open(speech)
    console.print(f"\nStreaming {speech.name}, {audio.duration_s:.1f} s of speech, as if it were spoken now\n")
    delays_s: dict[int, float | None] = {}
    async with Client(stack.gateway_urls).stream(audio.live(), audio.options()) as stream:

        async def with_delays_noted() -> AsyncIterator[Event]:
            async for event in stream:
                if isinstance(event, Final):
                    delays_s[event.segment_index] = event.delay_s
                yield event

        closed = await show(with_delays_noted(), console)
    if closed is None or not delays_s:
        raise StepFailed("the demonstration", "no text came back", hint=f"The logs are in {stack.settings.logs}.")

    table = Table("turn", "from", "to", "text", "words", "final after", caption="final after: from the end of speech")
    turn = 1
    for row in await stored_finals(stack, closed.session_id):
        delay_s = delays_s.get(row.segment_index)
        table.add_row(
            str(turn),
            clock(row.start_ms),
            clock(row.end_ms),
            row.text,
            str(len(row.words)),
            "" if delay_s is None else f"{delay_s:.2f} s",
        )
        turn += row.ends_turn
    console.print(f"\nPostgreSQL holds of session {closed.session_id}:", highlight=False)
    console.print(table)


async def stored_finals(stack: Stack, session_id: str) -> list[StoredFinal]:
    """Return the rows once the session's end is stored, because persistence lags a moment behind the log."""
    try:
        async with asyncio.timeout(STORED_LIMIT_S), Store.open(stack.database_url) as store:
            while True:
                session = await store.session(session_id)
                if session is not None and session.segment_count is not None:
                    return await store.finals(session_id)
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise StepFailed(
            "storing the session", f"not stored after {STORED_LIMIT_S:.0f} s", log=stack.log("persistence")
        ) from error
