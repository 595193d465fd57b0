"""Compare exports with the reference implementations, and record what those give.

python -m reference_tools parity tiny.en
python -m reference_tools record model_repository/tests/reference
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table
from whisperline_models.cli.console import console, errors_of
from whisperline_models.errors import ParityError
from whisperline_models.gate.speech import read_manifest
from whisperline_models.settings import ModelSettings
from whisperline_models.weights.sources import load_checkpoint

from reference_tools import recording
from reference_tools.parity import Parity, check

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_show_locals=False)


@app.command()
def parity(
    source: Annotated[str, typer.Argument(help="tiny.en, base, a folder, or a Hugging Face id")] = "tiny.en",
    languages: Annotated[str, typer.Option(help="of the clips, separated by commas")] = "en",
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the set")] = 10_000,
    deep: Annotated[int, typer.Option(min=1, help="how many are compared in outputs and word times too")] = 8,
) -> None:
    """Compare an export in float32 with transformers and openai-whisper on real speech."""
    settings = ModelSettings()
    with errors_of("parity"), TemporaryDirectory() as scratch:
        found = read_manifest(settings.speech_dir, set(languages.split(",")))
        chosen = found[:: max(1, len(found) // clips)][:clips]
        checkpoint = load_checkpoint(source, settings.cache)
        result = check(checkpoint, chosen, settings.oracle_python, Path(scratch), deep)
        console.print(_table(result))
        if not result.holds:
            raise ParityError("the export does not agree with the oracle")


@app.command()
def record(
    folder: Annotated[Path, typer.Argument(help="where the recordings are written")],
    kinds: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(recording.KINDS)}; all else")] = None,
) -> None:
    """Record what the reference gives, for tests that run without its environment."""
    with errors_of("record"):
        recording.record(folder, kinds or recording.KINDS, ModelSettings())


def _table(result: Parity) -> Table:
    table = Table("compared", "clips", "result", title="parity")
    deep = str(result.n_deep)
    table.add_row("greedy tokens", str(result.n_clips), f"{len(result.differing)} clips differ")
    table.add_row("greedy tokens, timestamps", deep, f"{len(result.differing_timed)} clips differ")
    table.add_row("log-mel", deep, f"largest error {result.mel_error:.1e}")
    table.add_row("encoder", deep, f"largest error {result.encoder_error:.1e}")
    table.add_row("decoder", deep, f"largest error {result.decoder_error:.1e}")
    table.add_row("word times", deep, f"median error {result.median_word_error_s * 1000:.0f} ms")
    return table


if __name__ == "__main__":
    app()
