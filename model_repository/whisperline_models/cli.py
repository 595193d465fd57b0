"""The command `whisperline-models`: makes the versions that Triton serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from whisperline_models.errors import ModelError, ParityError
from whisperline_models.export import export_version
from whisperline_models.parity import Parity, check
from whisperline_models.settings import ModelSettings
from whisperline_models.sources import load_checkpoint
from whisperline_models.speech import read_manifest

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
def parity(
    source: Annotated[str, typer.Argument(help="tiny.en, base, a folder, or a Hugging Face id")] = "tiny.en",
    languages: Annotated[str, typer.Option(help="of the clips, separated by commas")] = "en",
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the set")] = 10_000,
    deep: Annotated[int, typer.Option(min=1, help="how many are compared in outputs and word times too")] = 8,
    cache: Annotated[Path, typer.Option(help="where fetched weights are kept")] = settings.cache,
) -> None:
    """Compare an export in float32 with transformers and openai-whisper on real speech."""
    with _errors("parity"), TemporaryDirectory() as scratch:
        found = read_manifest(settings.speech_dir, set(languages.split(",")))
        chosen = found[:: max(1, len(found) // clips)][:clips]
        result = check(load_checkpoint(source, cache), chosen, settings.oracle_python, Path(scratch), deep)
        _report(result)
        if not result.holds:
            raise ParityError("the export does not agree with the oracle")


def _report(result: Parity) -> None:
    table = Table("compared", "clips", "result", title="parity")
    deep = str(result.n_deep)
    table.add_row("greedy tokens", str(result.n_clips), f"{len(result.differing)} clips differ")
    table.add_row("greedy tokens, timestamps", deep, f"{len(result.differing_timed)} clips differ")
    table.add_row("log-mel", deep, f"largest error {result.mel_error:.1e}")
    oracle = f"its own float32 {result.oracle_encoder_error:.1e}"
    table.add_row("encoder", deep, f"largest error {result.encoder_error:.1e}, {oracle}")
    table.add_row("decoder", deep, f"largest error {result.decoder_error:.1e}")
    table.add_row("word times", deep, f"median error {result.median_word_error_s * 1000:.0f} ms")
    console.print(table)


@contextmanager
def _errors(step: str) -> Iterator[None]:
    """Print an error that a user can act upon as one line, and exit with 1."""
    try:
        yield
    except ModelError as error:
        Console(stderr=True).print(f"{step} failed: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


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
    with _errors("export"):
        console.print(f"loading the weights of {source}", highlight=False)
        checkpoint = load_checkpoint(source, cache, sha256)
        console.print(f"sha256 {checkpoint.source.sha256}; building the graphs", highlight=False, soft_wrap=True)
        folder = export_version(checkpoint, output, version, precision.value)
    console.print(f"wrote {folder}", highlight=False, soft_wrap=True)
