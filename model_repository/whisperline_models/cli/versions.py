"""The commands that make versions and judge them: `export`, `init`, `assemble`, `verify`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from whisperline_models.cli.console import (
    CacheOption,
    FolderArgument,
    RepositoryOption,
    ShareOption,
    SourceArgument,
    console,
    errors_of,
    parse_share,
    report,
)
from whisperline_models.errors import GateError, VersionError
from whisperline_models.settings import ModelSettings

if TYPE_CHECKING:
    from whisperline_models.gate import Verification

# ruff: noqa: PLC0415 - a command imports what it needs when it is called, so that `whisperline` starts at once

_WAIVER = "made by `init`, for development"
_EXPORTING = ".exporting-"  # the prefix of folders that a killed `init` may leave


class Precision(StrEnum):
    """The precisions that the command line offers."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


PrecisionOption = Annotated[Precision, typer.Option(help="of the weights")]


def export(
    source: SourceArgument = "tiny.en",
    *,
    output: Annotated[Path | None, typer.Option(help="the folder to write; exports/SOURCE-PRECISION else")] = None,
    precision: PrecisionOption = Precision.INT8,
    sha256: Annotated[str | None, typer.Option(help="refuse weights with another checksum")] = None,
    cache: CacheOption,
) -> None:
    """Write a version of Whisper into a folder, to be verified and published."""
    with errors_of("export"):
        folder = output or Path("exports") / f"{Path(source).name}-{precision.value}"
        _export(source, folder, precision, sha256, cache)


def init(
    source: SourceArgument = "tiny.en",
    *,
    repository: RepositoryOption,
    precision: PrecisionOption = Precision.INT8,
    cache: CacheOption,
    keep: Annotated[bool, typer.Option("--keep", help="leave a repository that has versions as it is")] = False,
) -> None:
    """Make a repository that serves one model without a gate, for development."""
    from whisperline_models.rollout import Repository, publish

    with errors_of("init"):
        if keep and Repository(repository).rollout() is not None:
            report(f"{repository} has versions already")
            return
        with Repository(repository).changing():  # also removes what a killed command has left behind
            has_versions = bool(Repository(repository).versions())
        if has_versions:
            raise VersionError(f"{repository} has versions already: `export`, `verify` and `publish` another one")
        for left in repository.glob(f"{_EXPORTING}*"):
            rmtree(left)
        # Export inside the repository: its volume has the space, and may be the only writable place.
        with TemporaryDirectory(prefix=_EXPORTING, dir=repository) as scratch:
            _export(source, Path(scratch) / "version", precision, None, cache)
            publish(Path(scratch) / "version", Repository(repository), (), _WAIVER, report)


def _export(source: str, folder: Path, precision: Precision, sha256: str | None, cache: Path) -> None:
    from whisperline_models.export import export_version
    from whisperline_models.weights import load_checkpoint

    report(f"loading the weights of {source}")
    checkpoint = load_checkpoint(source, cache, sha256)
    report(f"sha256 {checkpoint.source.sha256}; building the graphs")
    export_version(checkpoint, folder, precision.value)
    report(f"wrote {folder}")


def assemble(
    *,
    version: Annotated[list[str], typer.Option(help="NUMBER=FOLDER, repeatable: what `export` wrote")],
    repository: RepositoryOption,
    default: Annotated[int | None, typer.Option(min=1, help="the version that serves")] = None,
    canary: Annotated[int | None, typer.Option(min=1, help="the version on trial")] = None,
    share: ShareOption = "10%",
    routing: Annotated[Path | None, typer.Option(help="a rollout.json instead, read again when it is replaced")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="rows that decode together")] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="requests of a lane at a time")] = None,
) -> None:
    """Make the repository of a server that is about to start, from versions in folders."""
    from whisperline_models import rollout
    from whisperline_models.rollout.repository import routing_errors
    from whisperline_models.routing.state import Rollout

    with errors_of("assemble"):
        versions = {}
        for text in version:
            number, equals, folder = text.partition("=")
            if not equals or not number.isdecimal() or int(number) < 1:
                raise VersionError(f"--version {text!r} is no number and folder, such as 3=/versions/3")
            versions[int(number)] = Path(folder)
        how: Path | Rollout
        if routing is not None:
            how = routing
        elif default is not None:
            with routing_errors():
                how = Rollout(default) if canary is None else Rollout(default).with_canary(canary, parse_share(share))
        else:
            raise VersionError("name the version that serves with --default, or a file with --routing")
        given = {"slots": slots, "max_requests": max_requests}
        parameters = {name: value for name, value in given.items() if value is not None}
        rollout.assemble(rollout.Repository(repository), versions, how, parameters, report)


def verify(
    folder: FolderArgument,
    *,
    clips_in: Annotated[
        Path,
        typer.Option(
            "--set",
            help="a manifest.jsonl of speech, or its folder",
            default_factory=lambda: ModelSettings().speech_dir,
            show_default="WHISPERLINE_SPEECH_DIR, or speech",
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(help="the repository whose version in service it is compared with")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="how many, spread over the set")] = 10_000,
    languages: Annotated[str | None, typer.Option(help="of the clips, separated by commas; all else")] = None,
) -> None:
    """Compare a version with the one in service on real speech; its gate must pass before `publish`."""
    from whisperline_models import gate
    from whisperline_models.gate.clips import languages_of
    from whisperline_models.gate.verification import CANDIDATE, IN_SERVICE
    from whisperline_models.rollout import Repository

    with errors_of("verify"), Progress(console=console, transient=True) as progress:
        chosen = gate.ClipSet.read(clips_in, set(languages.split(",")) if languages else languages_of(folder), clips)
        serving: Path | None = None
        if against is not None and (in_service := Repository(against).in_service()) is not None:
            serving = Repository(against).folder(in_service[0])
        names = (CANDIDATE,) if serving is None else (CANDIDATE, IN_SERVICE)
        bars = {name: progress.add_task(name, total=None) for name in names}
        verification = gate.verify(
            folder, chosen, serving, lambda name, done, of: progress.update(bars[name], completed=done, total=of)
        )
        progress.stop()
        _print_verification(verification)
        if not verification.gate.passed:
            raise GateError(f"{folder} does not pass: it cannot be published")
    console.print(f"{folder} passes its gate", style="green", highlight=False, soft_wrap=True)


def _print_verification(verification: Verification) -> None:
    from whisperline_models.gate.verification import MIN_SPEECH_S

    gate, ours, theirs = verification.gate, verification.candidate, verification.serving

    def silent(heard: tuple[str, ...]) -> str:
        return f"{gate.non_speech_clips - len(heard)} of {gate.non_speech_clips} silent"

    table = Table("", "candidate", "in service", "gate", title=f"{gate.set_name}: {gate.audio_s / 60:.1f} min")
    most = f"at most {gate.most_word_error_rate:.2%}"
    served = f"{theirs.word_error_rate:.2%}" if theirs else ""
    table.add_row(f"word error rate, {gate.clips} clips", f"{ours.word_error_rate:.2%}", served, most)
    if len(ours.by_language) > 1:
        for language, rate in ours.by_language.items():
            served = f"{theirs.by_language[language]:.2%}" if theirs else ""
            table.add_row(f"  {language}", f"{rate:.2%}", served, "")
    served = silent(theirs.heard_in_non_speech) if theirs else ""
    table.add_row("without speech", silent(gate.heard_in_non_speech), served, "all silent")
    table.add_row("speech", f"{gate.speech_s:.0f} s", "", f"at least {MIN_SPEECH_S:.0f} s")
    if gate.equal_tokens_clips is not None:
        table.add_row("same tokens as in service", f"{gate.equal_tokens_clips} of {len(ours.tokens)} clips", "", "")
    console.print(table)
    for heard in gate.heard_in_non_speech:
        console.print(f"heard in a clip without speech, {heard}", style="red", highlight=False, markup=False)
