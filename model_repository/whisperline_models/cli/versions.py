"""The command `whisperline-models`, which is also `whisperline models`: makes versions and brings them into service."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from whisperline_models.cli import rollout as cli_rollout
from whisperline_models.cli.console import console, errors_of, tell
from whisperline_models.errors import GateError
from whisperline_models.settings import ModelSettings

if TYPE_CHECKING:
    from whisperline_models.gate.verify import Verdict

# ruff: noqa: PLC0415 - what a command needs is imported when it is called: `whisperline` must start at once

HELP = "Make versions of Whisper for Triton, and roll them out."
EMBEDDED = "made by `init`, for development"
EXPORTING = ".exporting-"
app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, pretty_exceptions_show_locals=False)
settings = ModelSettings()

Source = Annotated[str, typer.Argument(help="tiny.en, base, a folder, or a Hugging Face id")]
Cache = Annotated[Path, typer.Option(help="where fetched weights are kept")]
Sha256 = Annotated[str | None, typer.Option(help="refuse weights with another checksum")]
Clips = Annotated[int, typer.Option(min=1, help="how many, spread over the set")]


class PrecisionChoice(StrEnum):
    """Precisions as the command line offers them."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


PrecisionOption = Annotated[PrecisionChoice, typer.Option(help="of the weights")]


@app.callback()
def main() -> None:
    """Make versions of Whisper for Triton, and roll them out."""


@app.command()
def export(
    source: Source = "tiny.en",
    output: Annotated[Path | None, typer.Option(help="the folder to write; exports/SOURCE-PRECISION else")] = None,
    precision: PrecisionOption = PrecisionChoice.INT8,
    sha256: Sha256 = None,
    cache: Cache = settings.cache,
) -> None:
    """Write a version of Whisper into a folder, to be verified and published."""
    with errors_of("export"):
        folder = output or Path("exports") / f"{Path(source).name}-{precision.value}"
        _export(source, folder, precision, sha256, cache)


@app.command()
def init(
    source: Source = "tiny.en",
    repository: cli_rollout.RepositoryPath = settings.repository,
    precision: PrecisionOption = PrecisionChoice.INT8,
    cache: Cache = settings.cache,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="leave a repository that has versions as it is")] = False,
) -> None:
    """Make a repository that serves a model, without a gate: for development."""
    from whisperline_models.errors import VersionError
    from whisperline_models.rollout.lifecycle import publish
    from whisperline_models.rollout.repository import Repository

    with errors_of("init"):
        if keep and Repository(repository).rollout() is not None:
            tell(f"{repository} has versions already")
            return
        with Repository(repository).changing():  # what a killed one has left is swept up
            has_versions = bool(Repository(repository).versions())
        if has_versions:
            raise VersionError(f"{repository} has versions already: `export`, `verify` and `publish` another one")
        repository.mkdir(parents=True, exist_ok=True)
        for left in repository.glob(f"{EXPORTING}*"):
            rmtree(left)
        # in the repository: its volume has the room, and may be the only place that can be written to
        with TemporaryDirectory(prefix=EXPORTING, dir=repository) as scratch:
            _export(source, Path(scratch) / "version", precision, None, cache)
            publish(Path(scratch) / "version", Repository(repository), (), EMBEDDED, tell)


@app.command()
def assemble(  # noqa: PLR0917 - typer calls it by name
    version: Annotated[list[str], typer.Option(help="NUMBER=FOLDER, repeatable: what `export` wrote")],
    repository: cli_rollout.RepositoryPath = settings.repository,
    default: Annotated[int | None, typer.Option(min=1, help="the version that serves")] = None,
    canary: Annotated[int | None, typer.Option(min=1, help="the version on trial")] = None,
    share: Annotated[str, typer.Option(help="of sessions for the canary, as 10% or 0.1")] = "10%",
    routing: Annotated[Path | None, typer.Option(help="a rollout.json instead, read again when it is replaced")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="rows that decode together")] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="requests of a lane at a time")] = None,
) -> None:
    """Lay out the repository of a server that starts afresh, from versions in folders."""
    from whisperline_models.rollout.assemble import Assembly, parse_version
    from whisperline_models.rollout.assemble import assemble as run
    from whisperline_models.rollout.repository import Repository
    from whisperline_models.routing.state import Rollout

    with errors_of("assemble"):
        rollout = None if default is None else Rollout(default)
        if rollout is not None and canary is not None:
            rollout = rollout.with_canary(canary, cli_rollout.parse_share(share))
        given = {"slots": slots, "max_requests": max_requests}
        parameters = {name: value for name, value in given.items() if value is not None}
        run(Repository(repository), Assembly(dict(map(parse_version, version)), rollout, routing, parameters), tell)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="what `export` wrote")],
    clips_in: Annotated[
        Path, typer.Option("--set", help="a manifest.jsonl of speech, or its folder")
    ] = settings.speech_dir,
    against: Annotated[
        Path | None, typer.Option(help="the repository whose version in service it is held against")
    ] = None,
    clips: Clips = 10_000,
    languages: Annotated[str | None, typer.Option(help="of the clips, separated by commas; all else")] = None,
) -> None:
    """Hold a version against the one in service on real speech; its gate must pass before `publish`."""
    from whisperline_models.gate.verify import CANDIDATE, IN_SERVICE, ClipSet
    from whisperline_models.gate.verify import verify as run
    from whisperline_models.manifest import Manifest
    from whisperline_models.rollout.repository import Repository, in_service

    with errors_of("verify"), Progress(console=console, transient=True) as progress:
        known = {"en"} if Manifest.read(folder).english_only else None
        chosen = ClipSet.read(clips_in, set(languages.split(",")) if languages else known, clips)
        serving = None if against is None else in_service(Repository(against))
        place = None if against is None or serving is None else Repository(against).folder(serving[0])
        names = (CANDIDATE, IN_SERVICE) if place else (CANDIDATE,)
        bars = {name: progress.add_task(name, total=None) for name in names}
        verdict = run(folder, chosen, place, lambda name, n, of: progress.update(bars[name], completed=n, total=of))
        progress.stop()
        _show(verdict)
        if not verdict.gate.passed:
            raise GateError(f"{folder} does not pass: it cannot be published")
    console.print(f"{folder} passes its gate", style="green", highlight=False, soft_wrap=True)


def _export(source: str, folder: Path, precision: PrecisionChoice, sha256: str | None, cache: Path) -> None:
    from whisperline_models.export.version import export_version
    from whisperline_models.weights.sources import load_checkpoint

    tell(f"loading the weights of {source}")
    checkpoint = load_checkpoint(source, cache, sha256)
    tell(f"sha256 {checkpoint.source.sha256}; building the graphs")
    export_version(checkpoint, folder, precision.value)
    tell(f"wrote {folder}")


def _show(verdict: Verdict) -> None:
    from whisperline_models.gate.verify import LEAST_SPEECH_S

    gate, ours, theirs = verdict.gate, verdict.candidate, verdict.serving
    table = Table("", "candidate", "in service", "gate", title=f"{gate.set_name}: {gate.audio_s / 60:.1f} min")
    most = f"at most {gate.most_word_error_rate:.2%}"
    served = f"{theirs.word_error_rate:.2%}" if theirs else ""
    table.add_row(f"word error rate, {gate.clips} clips", f"{ours.word_error_rate:.2%}", served, most)
    for language, rate in ours.by_language.items() if len(ours.by_language) > 1 else ():
        table.add_row(f"  {language}", f"{rate:.2%}", f"{theirs.by_language[language]:.2%}" if theirs else "", "")
    silent = f"{gate.non_speech_clips - len(gate.heard_in_non_speech)} of {gate.non_speech_clips} silent"
    quiet = (
        f"{gate.non_speech_clips - len(theirs.heard_in_non_speech)} of {gate.non_speech_clips} silent" if theirs else ""
    )
    table.add_row("without speech", silent, quiet, "all silent")
    table.add_row("speech", f"{gate.speech_s:.0f} s", "", f"at least {LEAST_SPEECH_S:.0f} s")
    if gate.equal_tokens_clips is not None:
        table.add_row("same tokens as in service", f"{gate.equal_tokens_clips} of {len(ours.tokens)} clips", "", "")
    console.print(table)
    for heard in gate.heard_in_non_speech:
        console.print(f"heard where nothing is said, {heard}", style="red", highlight=False, markup=False)


cli_rollout.register(app)
