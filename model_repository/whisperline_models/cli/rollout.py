"""The commands that bring versions into service and out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from whisperline_models.cli.console import console, errors_of, tell
from whisperline_models.errors import ServerError, VersionError
from whisperline_models.settings import ModelSettings

if TYPE_CHECKING:
    from whisperline_models.manifest import Manifest
    from whisperline_models.rollout.repository import Repository
    from whisperline_models.rollout.servers import Server
    from whisperline_models.routing.state import Rollout

# ruff: noqa: PLC0415 - what a command needs is imported when it is called: `whisperline` must start at once

settings = ModelSettings()
RepositoryPath = Annotated[Path, typer.Option(help="the Triton model repository")]
Addresses = Annotated[
    list[str],
    typer.Option(
        "--triton",
        envvar="WHISPERLINE_MODEL_TRITON",
        help="host:port of Triton's gRPC; repeatable, and every machine behind a name is meant",
    ),
]
Number = Annotated[int, typer.Argument(min=1, help="the version's number")]
DRAIN_S = 30.0  # longer than a client remembers the routing and a request takes


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (publish, canary, promote, rollback, remove):
        app.command()(command)
    app.command("list")(list_versions)


def publish(
    folder: Annotated[Path, typer.Argument(help="what `export` wrote and `verify` passed")],
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
    without_gate: Annotated[str | None, typer.Option(help="publish without one, for this reason")] = None,
) -> None:
    """Put a version into the repository as the next one and load it; only the first gets sessions at once."""
    from whisperline_models.rollout import lifecycle as rollout

    with errors_of("publish"), _opened(repository, triton) as (opened, servers):
        number = rollout.publish(folder, opened, servers, without_gate, tell)
        default = opened.routing().default
        share = (
            "serves every session"
            if default == number
            else f"gets no sessions yet: `canary --version {number}` gives it some"
        )
        tell(f"version {number} {share}")


def canary(
    number: Annotated[int, typer.Option("--version", min=1, help="the version's number")],
    share: Annotated[str, typer.Option(help="of sessions, as 10% or 0.1")] = "10%",
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
) -> None:
    """Give a share of sessions to a version; a larger share later keeps those that it has."""
    from whisperline_models.rollout import lifecycle as rollout

    with errors_of("canary"), _opened(repository, triton) as (opened, servers):
        rollout.start_canary(opened, servers, number, parse_share(share), tell)


def promote(
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
) -> None:
    """Make the canary the version of all sessions."""
    from whisperline_models.rollout import lifecycle as rollout

    with errors_of("promote"), _opened(repository, triton) as (opened, servers):
        rollout.promote(opened, servers, tell)


def rollback(
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
) -> None:
    """Take the canary's sessions back; without a canary, return to the version before."""
    from whisperline_models.rollout import lifecycle as rollout

    with errors_of("rollback"), _opened(repository, triton) as (opened, servers):
        rollout.roll_back(opened, servers, tell)


def remove(
    number: Number,
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
    drain_s: Annotated[float, typer.Option(min=0, help="least seconds since the routing last changed")] = DRAIN_S,
) -> None:
    """Unload a version that serves nobody, when its last requests are answered, and delete it."""
    from whisperline_models.rollout import lifecycle as rollout

    with errors_of("remove"), _opened(repository, triton) as (opened, servers):
        rollout.remove(opened, servers, number, drain_s, tell)


def list_versions(
    repository: RepositoryPath = settings.repository,
    triton: Addresses = [],  # noqa: B006 - typer copies it
) -> None:
    """Show the versions: gate, share of sessions, and where they are loaded."""
    from whisperline_models.manifest import Manifest

    with errors_of("list"), _opened(repository, triton) as (opened, servers):
        rollout = opened.rollout()
        loaded = {server.address: _loaded(server) for server in servers}
        table = Table("version", "model", "precision", "gate", "sessions", *loaded)
        for number in opened.versions():
            manifest = Manifest.read(opened.folder(number))
            where = ("?" if found is None else "loaded" if number in found else "-" for found in loaded.values())
            row = (str(number), manifest.model, manifest.precision, _gate(manifest), _sessions(rollout, number))
            table.add_row(*row, *where)
        console.print(table)


def parse_share(text: str) -> float:
    """Read "10%", "10 %" or "0.1" as a fraction. Raises `VersionError` where it is none."""
    number = text.strip().removesuffix("%").strip()
    try:
        return float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError as error:
        raise VersionError(f"--share {text!r} is no share of sessions, such as 10% or 0.1") from error


def _gate(manifest: Manifest) -> str:
    if manifest.gate is not None and manifest.gate.content == manifest.content:
        verdict = "passed" if manifest.gate.passed else "FAILED"
        return f"{verdict}, {manifest.gate.word_error_rate:.2%} on {manifest.gate.set_name}"
    return f"none: {manifest.waiver.reason}" if manifest.waiver else "none"


def _sessions(rollout: Rollout | None, number: int) -> str:
    if rollout is None:
        return ""
    share = rollout.canary.share if rollout.canary else 0.0
    if rollout.canary and number == rollout.canary.version:
        return f"canary, {share:.0%}"
    if number == rollout.default:
        return f"default, {1 - share:.0%}"
    return "before" if number in rollout.previous else "none"


def _loaded(server: Server) -> list[int] | None:
    try:
        return server.loaded()
    except ServerError as error:
        tell(str(error))
        return None


@contextmanager
def _opened(path: Path, addresses: list[str]) -> Iterator[tuple[Repository, list[Server]]]:
    """The repository, and a connection to every server behind the addresses."""
    from whisperline_models.rollout.repository import Repository
    from whisperline_models.rollout.servers import Server, resolve

    with ExitStack() as stack:
        yield Repository(path), [stack.enter_context(Server(address)) for address in resolve(addresses)]
