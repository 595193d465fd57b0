"""The command `whisperline-models`: makes the versions that Triton serves."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from whisperline_models.errors import ModelError
from whisperline_models.export import export_version
from whisperline_models.settings import ModelSettings
from whisperline_models.sources import load_checkpoint

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make and check Whisper models for Triton.")
console = Console()
settings = ModelSettings()


class PrecisionChoice(StrEnum):
    """Precisions as the command line offers them."""

    FLOAT32 = "float32"
    INT8 = "int8"


@app.callback()
def main() -> None:
    """Make and check Whisper models for Triton."""


@app.command()
def export(  # noqa: PLR0917 - each is an option of the command
    source: Annotated[str, typer.Argument(help="tiny.en, base, a folder, or a Hugging Face id")] = "tiny.en",
    output: Annotated[Path, typer.Option(help="the Triton model repository to write into")] = settings.repository,
    version: Annotated[int, typer.Option(min=1, help="the version's number")] = 1,
    precision: Annotated[PrecisionChoice, typer.Option(help="of the decoder's weights")] = PrecisionChoice.INT8,
    sha256: Annotated[str | None, typer.Option(help="refuse weights with another checksum")] = None,
    cache: Annotated[Path, typer.Option(help="where fetched weights are kept")] = settings.cache,
) -> None:
    """Write a version of Whisper into a Triton model repository."""
    try:
        console.print(f"loading the weights of {source}", highlight=False)
        checkpoint = load_checkpoint(source, cache, sha256)
        console.print(f"sha256 {checkpoint.source.sha256}; building the graphs", highlight=False)
        folder = export_version(checkpoint, output, version, precision.value)
    except ModelError as error:
        Console(stderr=True).print(f"export failed: {error}", style="red", highlight=False)
        raise typer.Exit(1) from error
    console.print(f"wrote {folder}", highlight=False, soft_wrap=True)
