"""The command `whisperline`. Other packages add groups through the entry-point group `whisperline.commands`."""

import asyncio
import signal
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from rich.console import Console

from whisperline_client import microphone, terminal
from whisperline_client.client import Client
from whisperline_client.errors import WhisperlineError
from whisperline_client.events import Closed
from whisperline_client.options import DEFAULT_URL, ListenOptions
from whisperline_client.sources import AudioFile

COMMANDS_GROUP = "whisperline.commands"  # each entry point: a typer.Typer

app = typer.Typer(
    help="Speech to text on your own machines.", no_args_is_help=True, pretty_exceptions_show_locals=False
)
errors = Console(stderr=True, markup=False, soft_wrap=True)
T = TypeVar("T")

Urls = Annotated[
    list[str], typer.Option("--url", envvar="WHISPERLINE_URL", help="A gateway. Give several to survive one's loss.")
]
Language = Annotated[str | None, typer.Option(help="Language spoken, such as en or fr.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write events as JSON, one a line.")]


@app.command()
def stream(
    file: Annotated[Path, typer.Argument(help="An audio file: WAV, FLAC, Ogg, MP3...")],
    url: Urls = [DEFAULT_URL],  # noqa: B006 - typer copies it
    language: Language = None,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as the gateway takes it, behind live speech.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stream an audio file in real time and show its text."""
    audio = _or_exit(lambda: AudioFile.open(file))
    options = audio.options(language=language, priority="file" if fast else "live")
    _run(audio.live(speed=None if fast else 1.0), options, url, as_json)


@app.command()
def mic(
    url: Urls = [DEFAULT_URL],  # noqa: B006 - typer copies it
    language: Language = None,
    device: Annotated[str | None, typer.Option(help="Input device: its number or a part of its name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stream the microphone until Ctrl-C and show its text."""
    _or_exit(microphone.require_sounddevice)
    source = microphone.microphone(int(device) if device and device.isdecimal() else device)
    errors.print("listening; Ctrl-C ends the session", style="dim")
    _run(source, ListenOptions(sample_rate=microphone.SAMPLE_RATE, language=language), url, as_json)


def _run(audio: AsyncIterable[bytes], options: ListenOptions, urls: list[str], as_json: bool) -> None:
    closed = _or_exit(lambda: asyncio.run(_stream(audio, options, urls, as_json)))
    if closed is not None and not as_json:
        errors.print(f"session {closed.session_id}: {closed.duration_ms / 1000:.1f} s of audio", style="dim")


async def _stream(audio: AsyncIterable[bytes], options: ListenOptions, urls: list[str], as_json: bool) -> Closed | None:
    async with Client(urls).stream(_until_interrupted(audio), options) as opened:
        if as_json:
            return await terminal.write_json(opened, typer.echo)
        return await terminal.show(opened, Console(), delays=options.priority == "live")


async def _until_interrupted(audio: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield audio until Ctrl-C, so that the last words are still heard; a second Ctrl-C stops at once."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    stop = asyncio.create_task(interrupted.wait())
    blocks = aiter(audio)
    try:
        while (block := await _next_unless(stop, blocks)) is not None:
            yield block
    finally:
        stop.cancel()
        loop.remove_signal_handler(signal.SIGINT)


async def _next_unless(stop: "asyncio.Task[Literal[True]]", blocks: AsyncIterator[bytes]) -> bytes | None:
    following = asyncio.ensure_future(anext(blocks, None))
    try:
        await asyncio.wait((following, stop), return_when=asyncio.FIRST_COMPLETED)
        return None if stop.done() else following.result()
    finally:
        following.cancel()


def _or_exit(work: Callable[[], T]) -> T:
    """Return what the work returns; end the command with the error's text when it fails."""
    try:
        return work()
    except (WhisperlineError, ValueError) as error:
        errors.print(f"error: {error}", style="red", highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def main() -> None:
    """Run the command line, with the groups that other packages add."""
    add_groups(app, entry_points(group=COMMANDS_GROUP))
    app()


def add_groups(to: typer.Typer, groups: Iterable[EntryPoint]) -> None:
    """Add other packages' groups of commands; one that cannot be loaded is left out, with a line that says so."""
    for group in groups:
        try:
            to.add_typer(group.load(), name=group.name)
        except Exception as error:
            errors.print(f"the commands of {group.value} are left out: {error}", style="yellow")
