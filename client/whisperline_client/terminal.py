"""Show events on a terminal: a partial is grey, its stable beginning brighter, and its final takes its place.

A turn is one line, which moves up for good when the speaker is done.
"""

import json
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.live import Live
from rich.text import Text

from whisperline_client import events

STABLE, UNSTABLE = "grey74", "grey50"


async def show(stream: AsyncIterable[events.Event], console: Console, *, delays: bool = True) -> events.Closed | None:
    """Show the events of a stream until it ends, and return the last one.

    `delays` shows how long each final took, which means something only for audio in real time.
    """
    closed: events.Closed | None = None
    lost = False
    turn: list[events.Final] = []  # the finals of a turn that goes on
    with Live(console=console, transient=True, auto_refresh=False) as live:
        async for event in stream:
            was_lost, lost = lost, isinstance(event, events.Disconnected)
            match event:
                case events.Disconnected() if was_lost:
                    pass  # one outage, one line
                case events.Partial():
                    live.update(partial_text(event, turn), refresh=True)
                case events.Final():
                    turn += [event] if event.text else []
                    ended, turn = (turn, []) if event.speech_final else ([], turn)
                    live.update(turn_text(turn, delays=False) if turn else Text(), refresh=True)
                    if ended:
                        console.print(turn_text(ended, delays=delays))
                case events.Closed():
                    closed = event
                case _ if (line := line_of(event)) is not None:
                    live.update(Text(), refresh=True)
                    console.print(line)
    if turn:  # the stream ended before the turn
        console.print(turn_text(turn, delays=delays))
    return closed


async def write_json(stream: AsyncIterable[events.Event], write: Callable[[str], None]) -> events.Closed | None:
    """Write each event as one line of JSON, and return the last one. Resume tokens, being secrets, are left out."""
    closed: events.Closed | None = None
    async for event in stream:
        fields = {name: value for name, value in asdict(event).items() if name != "resume_token"}
        write(json.dumps({"type": type(event).__name__, **fields}, ensure_ascii=False))
        closed = event if isinstance(event, events.Closed) else closed
    return closed


def partial_text(partial: events.Partial, turn: Sequence[events.Final] = ()) -> Text:
    """Return the line that shows a partial, behind the finals of the same turn."""
    if not partial.text:  # the words that were shown were none
        return turn_text(turn, delays=False) if turn else Text()
    unstable = partial.text.removeprefix(partial.stable_text)
    new = Text.assemble((partial.stable_text, STABLE), (unstable, UNSTABLE))
    if turn:
        return Text.assemble(turn_text(turn, delays=False), " ", new)
    return Text.assemble((clock(partial.start_ms), "dim"), "  ", new)


def turn_text(turn: Sequence[events.Final], *, delays: bool) -> Text:
    """Return the line of the finals of one turn; with `delays`, also how long the last one took."""
    text, delay_s = " ".join(final.text for final in turn), turn[-1].delay_s
    delay = f"  +{delay_s:.2f} s" if delays and delay_s is not None else ""
    return Text.assemble((clock(turn[0].start_ms), "dim"), "  ", (text, "bold"), (delay, "cyan"))


def line_of(event: events.Event) -> Text | None:
    """Return the line that an event other than text leaves on the terminal, or None."""
    match event:
        case events.Disconnected():
            return Text(f"connection lost, trying again: {event.reason}", "yellow")
        case events.Resumed():
            return Text(f"resumed on connection {event.connection_id[:8]}", "green")
    return None


def clock(time_ms: int) -> str:
    """Return a time in the session as minutes and seconds, such as 01:02.3."""
    minutes, milliseconds = divmod(time_ms, 60_000)
    return f"{minutes:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000 // 100}"
