"""`whisperline-local`: start the embedded stack, show its status, or run the demonstration."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from whisperline_local.assets import demo_speech, voice_activity_model
from whisperline_local.errors import AlreadyRunning, LocalError, first_error_of_tasks
from whisperline_local.kafka import fetch_broker, find_java
from whisperline_local.models import export_model
from whisperline_local.process import ReportStep
from whisperline_local.runner import State
from whisperline_local.settings import ENV_PREFIX, LocalSettings
from whisperline_local.stack import Stack
from whisperline_local.state_folder import STATUS_FILE, take_state_folder
from whisperline_local.terminal import Progress, status_table
from whisperline_local.triton import fetch_server

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

    def from_here(path: Path) -> str:
        return os.path.relpath(path)

    async def stay(stack: Stack, clip: Awaitable[Path]) -> None:
        if any(service.name == "gateway" for service in stack.services):
            url = stack.gateway_urls[0]
            client = Path(sys.executable).with_name("whisperline")
            command = client.name if shutil.which(client.name) == str(client) else from_here(client)
            try:
                speech = from_here(await clip)
            except LocalError:
                speech = "speech.wav"  # no package index can be reached: let users name a file of their own
            console.print(f"\nWhisperline is up at [bold]{url}[/] (Ctrl-C stops it). Try:\n", highlight=False)
            console.print(f"    {command} stream --url {url} {speech}\n", soft_wrap=True)
        console.print(f"Logs: {stack.settings.logs}", highlight=False, soft_wrap=True)
        await stack.until_failed()

    _in_stack(only, stay, demo_speech)


@app.command()
def demo(speech: Speech = None) -> None:
    """Start everything, stream real speech in real time, show what PostgreSQL holds of it, and stop."""

    async def given_or_fetched(settings: LocalSettings) -> Path:
        return speech or await demo_speech(settings)

    async def work(stack: Stack, clip: Awaitable[Path]) -> None:
        from whisperline_local.demo import demonstrate  # noqa: PLC0415 - slow to import: not while services start

        await demonstrate(stack, await clip, console)

    _in_stack(None, work, given_or_fetched)


@app.command()
def prepare() -> None:
    """Fetch and make what the stack needs, without starting it."""

    async def work() -> None:
        settings = _settings()
        parts: dict[str, Callable[[ReportStep], Awaitable[object]]] = {
            "java": lambda _: find_java(settings),
            "kafka": lambda report_step: fetch_broker(settings, report_step),
            "triton": lambda report_step: fetch_server(settings, report_step),
            "model": lambda report_step: export_model(settings, report_step),
            "voice activity": lambda report_step: voice_activity_model(settings, report_step),
            "demo speech": lambda report_step: demo_speech(settings, report_step),
        }
        with Progress(console) as progress, first_error_of_tasks():

            async def prepare_part(name: str) -> None:
                progress(name, State.PREPARING, "")
                await parts[name](lambda step: progress(name, State.PREPARING, step))
                progress(name, State.DONE, "")

            async with asyncio.TaskGroup() as tasks:
                for name in parts:
                    tasks.create_task(prepare_part(name))

    _or_exit(lambda: _interruptible(work(), lambda: None))


@app.command()
def status() -> None:
    """Show the services of the stack that runs on the state folder; exit with 3 when none does."""
    settings = _or_exit(_settings)
    try:
        take_state_folder(settings.state).close()
    except AlreadyRunning:
        console.print(status_table(json.loads((settings.state / STATUS_FILE).read_text())))
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
    work: Callable[[Stack, Awaitable[Path]], Coroutine[object, object, None]],
    fetch_clip: Callable[[LocalSettings], Coroutine[object, object, Path]],
) -> None:
    """Run `work` in a running stack, and fetch a clip of speech while the stack starts.

    The first signal stops everything in order, a second one kills everything at once.
    """

    async def run(stack: Stack, progress: Progress) -> None:
        # Not in a task group, because `up` goes on without a clip if it cannot be fetched.
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


def _interruptible(work: Coroutine[object, object, None], hurry: Callable[[], None]) -> None:
    """Run `work`. The first signal to stop cancels it, the next ones call `hurry`."""

    async def run() -> None:
        task = asyncio.create_task(work)
        for number in STOP_SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # the parent ignores it, as under nohup
            asyncio.get_running_loop().add_signal_handler(
                number, lambda: hurry() if task.cancelling() else task.cancel()
            )
        await task

    with suppress(asyncio.CancelledError):
        asyncio.run(run())


def _or_exit(work: Callable[[], T]) -> T:
    """Return the result of `work`; if it fails, show the error and end the command."""
    try:
        return work()
    except LocalError as error:
        Console(stderr=True).print(Text(str(error), "red"), soft_wrap=True)
        raise typer.Exit(1) from error
