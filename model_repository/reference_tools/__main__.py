"""The commands of `python -m reference_tools`: compare exports with the reference, and record its answers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table
from whisperline_models.cli.console import CacheOption, SourceArgument, console, errors_of
from whisperline_models.gate import read_manifest
from whisperline_models.gate.clips import take_spread
from whisperline_models.settings import ModelSettings
from whisperline_models.weights import load_checkpoint

from reference_tools.ask import ParityError
from reference_tools.parity import compare
from reference_tools.recording import KINDS, OracleSettings, record

HELP = "Compare exports with transformers and openai-whisper, which run in an environment of their own."
app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, pretty_exceptions_show_locals=False)


@app.command()
def parity(
    source: SourceArgument = "tiny.en",
    *,
    languages: Annotated[str, typer.Option(help="of the clips, separated by commas")] = "en",
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the set")] = 10_000,
    deep: Annotated[int, typer.Option(min=1, help="how many are compared in outputs and word times, too")] = 8,
    cache: CacheOption,
) -> None:
    """Compare an export in float32 with the reference on real speech. Exits with 1 if they differ."""
    with errors_of("parity"), TemporaryDirectory() as scratch:
        chosen = take_spread(read_manifest(ModelSettings().speech_dir, set(languages.split(","))), clips)
        checkpoint = load_checkpoint(source, cache)
        result = compare(checkpoint, chosen, OracleSettings().oracle_python, Path(scratch), deep)
        table = Table("compared", "clips", "result", title="parity")
        n_deep = str(result.n_deep)
        table.add_row("greedy tokens", str(result.n_clips), f"{len(result.differing)} clips differ")
        table.add_row("greedy tokens, timestamps", n_deep, f"{len(result.differing_timed)} clips differ")
        table.add_row("log-mel", n_deep, f"largest error {result.mel_error:.1e}")
        table.add_row("encoder", n_deep, f"largest error {result.encoder_error:.1e}")
        table.add_row("decoder", n_deep, f"largest error {result.decoder_error:.1e}")
        table.add_row("word times", n_deep, f"median error {result.median_word_error_s * 1000:.0f} ms")
        console.print(table)
        if not result.holds:
            raise ParityError("the export does not agree with the oracle")


@app.command("record")
def record_answers(
    folder: Annotated[Path, typer.Argument(help="where the recordings are, such as model_repository/tests/reference")],
    kinds: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(KINDS)}; all else")] = None,
) -> None:
    """Record the reference's answers, for tests that run without its environment."""
    with errors_of("record"):
        record(folder, kinds or KINDS, ModelSettings(), OracleSettings().oracle_python)


if __name__ == "__main__":
    app()
