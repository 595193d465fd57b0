"""The command `whisperline`. Other packages add groups through the entry-point group `whisperline.commands`."""

import asyncio
import signal
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from whisperline_client import sources, terminal
from whisperline_client.client import Client
from whisperline_client.errors import WhisperlineError
from whisperline_client.events import Closed
from whisperline_client.options import DEFAULT_URL, ListenOptions

COMMANDS_GROUP = "whisperline.commands"  # each entry point names a typer.Typer

app = typer.Typer(
    help="Speech to text on your own machines.", no_args_is_help=True, pretty_exceptions_show_locals=False
)
errors = Console(stderr=True, markup=False, soft_wrap=True)
T = TypeVar("T")

Urls = Annotated[
    list[str],
    typer.Option("--url", envvar="WHISPERLINE_URL", help="URL of a gateway; repeat it to survive the loss of one."),
]
Language = Annotated[str | None, typer.Option(help="Language spoken, such as en or fr; multi detects it.")]
Keyterms = Annotated[list[str], typer.Option("--keyterm", help="A name or phrase to expect; repeat it for several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write events as JSON, one per line.")]


@app.command()
def stream(
    file: Annotated[Path, typer.Argument(help="An audio file: WAV, FLAC, Ogg, MP3...")],
    *,
    url: Urls = [DEFAULT_URL],  # noqa: B006 - typer copies it
    language: Language = None,
    keyterms: Keyterms = [],  # noqa: B006 - typer copies it
    fast: Annotated[bool, typer.Option("--fast", help="As fast as the gateway takes it, behind live speech.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stream an audio file in real time and show its text."""
    audio = _or_exit(lambda: sources.AudioFile.open(file))
    options = audio.options(language=language, keyterms=keyterms, priority="file" if fast else "live")
    _transcribe(audio.live(speed=None if fast else 1.0), options, url, as_json)


@app.command()
def mic(
    url: Urls = [DEFAULT_URL],  # noqa: B006 - typer copies it
    language: Language = None,
    keyterms: Keyterms = [],  # noqa: B006 - typer copies it
    device: Annotated[str | None, typer.Option(help="Input device: its number or a part of its name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stream the microphone until Ctrl-C and show its text."""
    _or_exit(sources.require_sounddevice)
    audio = sources.microphone(int(device) if device and device.isdecimal() else device)
    errors.print("listening; Ctrl-C ends the session", style="dim")
    options = ListenOptions(sample_rate=sources.MICROPHONE_SAMPLE_RATE, language=language, keyterms=keyterms)
    _transcribe(audio, options, url, as_json)


def _transcribe(audio: AsyncIterable[bytes], options: ListenOptions, urls: list[str], as_json: bool) -> None:
    """Stream audio and show its events.

    Ctrl-C ends the audio, so that the last words are still transcribed; a second Ctrl-C stops at once.
    """

    async def run() -> Closed | None:
        loop = asyncio.get_running_loop()

        def end_audio() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            opened.end_audio()

        async def interruptible() -> AsyncIterator[bytes]:
            # The handler exists only while there is audio; after that, Ctrl-C stops the command at once.
            loop.add_signal_handler(signal.SIGINT, end_audio)
            try:
                async for block in audio:
                    yield block
            finally:
                loop.remove_signal_handler(signal.SIGINT)

        async with Client(urls).stream(interruptible(), options) as opened:
            if as_json:
                return await terminal.write_json(opened, typer.echo)
            return await terminal.show(opened, Console(), delays=options.priority == "live")

    closed = _or_exit(lambda: asyncio.run(run()))
    if closed is not None and not as_json:
        errors.print(f"session {closed.session_id}: {closed.duration_ms / 1000:.1f} s of audio", style="dim")


def _or_exit(work: Callable[[], T]) -> T:
    """Return the result of `work`; if it fails, show the error and end the command."""
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
    """Add other packages' groups of commands; skip a group that cannot be loaded, and print a warning."""
    for group in groups:
        try:
            to.add_typer(group.load(), name=group.name)
        except Exception as error:
            errors.print(f"the commands of {group.value} are left out: {error}", style="yellow")
