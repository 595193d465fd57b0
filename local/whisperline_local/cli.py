"""`whisperline-local`: start the embedded stack, look at it, or watch it work."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whisperline_local.assets import demo_speech
from whisperline_local.errors import AlreadyRunning, LocalError
from whisperline_local.preparation import prepare as prepare_all
from whisperline_local.progress import STYLES, Progress
from whisperline_local.runner import State
from whisperline_local.settings import ENV_PREFIX, LocalSettings
from whisperline_local.stack import STATUS_FILE, Stack, take_state_folder

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
console = Console()

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOT_RUNNING = 3  # the exit code of `status`, as in the Linux Standard Base

T = TypeVar("T")
Only = Annotated[list[str] | None, typer.Option(help="A service to start, with all that it needs; repeatable.")]
Speech = Annotated[Path | None, typer.Argument(help="An audio file; a clip of real speech is fetched without one.")]


@app.command()
def up(only: Only = None) -> None:
    """Start everything and keep it running until Ctrl-C."""
    _in_stack(only, _stay, demo_speech)


@app.command()
def demo(speech: Speech = None) -> None:
    """Start everything, stream real speech in real time, show what PostgreSQL holds of it, and stop."""

    async def given_or_fetched(settings: LocalSettings) -> Path:
        return speech or await demo_speech(settings)

    async def work(stack: Stack, clip: asyncio.Task[Path]) -> None:
        from whisperline_local.demo import demonstrate  # noqa: PLC0415 - not to be imported while services start

        await demonstrate(stack, await clip, console)

    _in_stack(None, work, given_or_fetched)


@app.command()
def prepare() -> None:
    """Fetch and make what the stack needs, without starting it."""

    async def work() -> None:
        with Progress(console) as progress:
            await prepare_all(_settings(), progress)

    _or_exit(lambda: _interruptible(work(), lambda: None))


@app.command()
def status() -> None:
    """Show the services of the stack that runs on the state folder; exit with 3 when none does."""
    settings = _or_exit(_settings)
    try:
        take_state_folder(settings.state).close()
    except AlreadyRunning:
        console.print(_status_table(json.loads((settings.state / STATUS_FILE).read_text())))
        return
    console.print(f"No stack runs on {settings.state}.", highlight=False)
    raise typer.Exit(NOT_RUNNING)


def _settings() -> LocalSettings:
    try:
        return LocalSettings()
    except ValidationError as error:
        problems = (f"{ENV_PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise LocalError("Wrong settings\n" + "\n".join(problems)) from error


def _in_stack(
    only: list[str] | None,
    work: Callable[[Stack, asyncio.Task[Path]], Coroutine[object, object, None]],
    fetch_clip: Callable[[LocalSettings], Coroutine[object, object, Path]],
) -> None:
    """Run `work` in a running stack, a clip of speech being fetched while it starts.

    A signal ends all in good order, a second one at once.
    """

    async def run(stack: Stack, progress: Progress) -> None:
        clip = asyncio.create_task(fetch_clip(stack.settings))
        try:
            with ExitStack() as shown:
                shown.enter_context(progress)
                async with stack:
                    shown.close()
                    await work(stack, clip)
        finally:
            clip.cancel()
            await asyncio.gather(clip, return_exceptions=True)

    def start() -> None:
        progress = Progress(console)
        stack = Stack(_settings(), only, progress)
        _interruptible(run(stack, progress), stack.hurry)

    _or_exit(start)


async def _stay(stack: Stack, clip: asyncio.Task[Path]) -> None:
    if any(service.name == "gateway" for service in stack.services):
        url = stack.gateway_urls[0]
        console.print(f"\nWhisperline is up at [bold]{url}[/] (Ctrl-C stops it). Try:\n", highlight=False)
        console.print(f"    {_command('whisperline')} stream --url {url} {await _name(clip)}\n", soft_wrap=True)
    console.print(f"Logs: {stack.settings.logs}", highlight=False, soft_wrap=True)
    await stack.until_failed()


async def _name(clip: asyncio.Task[Path]) -> str:
    try:
        path = await clip
    except LocalError:
        return "speech.wav"  # without an index in reach, a file of the reader's own
    return _from_here(path)


def _command(name: str) -> str:
    """Return how to call a command of this environment from here."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else _from_here(path)


def _from_here(path: Path) -> str:
    return os.path.relpath(path)


def _interruptible(work: Coroutine[object, object, None], hurry: Callable[[], None]) -> None:
    """Run `work`; the first signal to stop cancels it, the next ones call `hurry`."""

    async def run() -> None:
        task = asyncio.create_task(work)
        for number in STOP_SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            asyncio.get_running_loop().add_signal_handler(
                number, lambda: hurry() if task.cancelling() else task.cancel()
            )
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    asyncio.run(run())


def _or_exit(work: Callable[[], T]) -> T:
    try:
        return work()
    except LocalError as error:
        Console(stderr=True).print(Text(str(error), "red"), soft_wrap=True)
        raise typer.Exit(1) from error


def _status_table(status: dict[str, list[dict[str, object]]]) -> Table:
    table = Table("service", "state", "process", "restarts", "ports", "log")
    for row in status["services"]:
        state = State(str(row["state"]))
        style = STYLES.get(state, "cyan")
        table.add_row(
            str(row["name"]),
            f"[{style}]{state}[/]",
            str(row["pid"] or ""),
            str(row["restarts"]),
            " ".join(map(str, row["ports"])) if isinstance(row["ports"], list) else "",
            str(row["log"]),
        )
    return table
