"""`whisperline-local`: start the embedded stack, look at it, or watch it work."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from whisperline_local.errors import LocalError
from whisperline_local.progress import Progress
from whisperline_local.settings import ENV_PREFIX, LocalSettings
from whisperline_local.stack import Stack

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()
errors = Console(stderr=True)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@app.command()
def up(
    only: Annotated[list[str] | None, typer.Option(help="A service to start, with what it needs; repeatable.")] = None,
) -> None:
    """Start everything and keep it running until Ctrl-C."""
    _run(_up(only))


async def _up(only: list[str] | None) -> None:
    progress = Progress(console)
    stack = Stack(_settings(), only, progress)
    with _stopping(stack):
        with progress:
            await stack.__aenter__()


def _settings() -> LocalSettings:
    try:
        return LocalSettings()
    except ValidationError as error:
        lines = (f"{ENV_PREFIX}{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise LocalError("Wrong settings:\n" + "\n".join(lines)) from error
