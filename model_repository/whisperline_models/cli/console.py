"""What every command prints with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from whisperline_models.errors import ModelError
from whisperline_models.routing.state import RolloutError

console = Console()


def tell(line: str) -> None:
    """Print what was done."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def errors_of(step: str) -> Iterator[None]:
    """Print an error that a user can act upon, and exit with 1."""
    try:
        yield
    except (ModelError, RolloutError) as error:
        stderr = Console(stderr=True)
        stderr.print(f"{step} failed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
