"""Options that several commands share, and functions that print results and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from whisperline_models.errors import ModelError, VersionError
from whisperline_models.settings import ModelSettings

console = Console()

RepositoryOption = Annotated[
    Path,
    typer.Option(
        help="the Triton model repository",
        default_factory=lambda: ModelSettings().repository,
        show_default="WHISPERLINE_MODEL_REPOSITORY, or models",
    ),
]
CacheOption = Annotated[
    Path,
    typer.Option(
        help="where fetched weights are kept",
        default_factory=lambda: ModelSettings().cache,
        show_default="WHISPERLINE_MODEL_CACHE, or ~/.cache/whisperline",
    ),
]
SourceArgument = Annotated[str, typer.Argument(help="tiny.en, base, a folder, or a Hugging Face id")]
FolderArgument = Annotated[Path, typer.Argument(help="the folder that `export` wrote")]
ShareOption = Annotated[str, typer.Option(help="of sessions for the canary, as 10% or 0.1")]


def report(line: str) -> None:
    """Print a line of progress."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


# Any other error is a bug in this program, and shows its traceback.
@contextmanager
def errors_of(step: str) -> Iterator[None]:
    """Print an error that the user can act on, and exit with 1."""
    try:
        yield
    except ModelError as error:
        stderr = Console(stderr=True)
        stderr.print(f"{step} failed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def parse_share(text: str) -> float:
    """Read "10%", "10 %" or "0.1" as a fraction. Raises `VersionError`."""
    number = text.strip().removesuffix("%").strip()
    try:
        return float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError as error:
        raise VersionError(f"--share {text!r} is no share of sessions, such as 10% or 0.1") from error
