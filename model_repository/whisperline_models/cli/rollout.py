"""The commands that bring versions into service and out of it, from `publish` to `remove`, and `list`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from whisperline_models.cli.console import (
    FolderArgument,
    RepositoryOption,
    ShareOption,
    console,
    errors_of,
    parse_share,
    report,
)
from whisperline_models.errors import ServerError

if TYPE_CHECKING:
    from whisperline_models.rollout import Repository, Server

# ruff: noqa: PLC0415 - a command imports what it needs when it is called, so that `whisperline` starts at once
# ruff: noqa: B006 - typer copies the empty list

TritonOption = Annotated[
    list[str],
    typer.Option(
        "--triton",
        envvar="WHISPERLINE_MODEL_TRITON",
        help="host:port of Triton's gRPC; repeatable; stands for every machine behind a name",
    ),
]
DRAIN_S = 30.0  # longer than a client caches the routing plus the time that a request takes


def publish(
    folder: FolderArgument,
    *,
    repository: RepositoryOption,
    triton: TritonOption = [],
    without_gate: Annotated[str | None, typer.Option(help="publish without one, for this reason")] = None,
) -> None:
    """Add a version to the repository under the next number and load it; only the first gets sessions at once."""
    from whisperline_models import rollout

    with errors_of("publish"), _opened(repository, triton) as (opened, servers):
        number = rollout.publish(folder, opened, servers, without_gate, report)
        if opened.routing().default == number:
            report(f"version {number} serves every session")
        else:
            report(f"version {number} gets no sessions yet: `canary --version {number}` gives it some")


def canary(
    *,
    number: Annotated[int, typer.Option("--version", min=1, help="the version's number")],
    share: ShareOption = "10%",
    repository: RepositoryOption,
    triton: TritonOption = [],
) -> None:
    """Give a share of sessions to a version; a larger share later keeps those that it has."""
    from whisperline_models import rollout

    with errors_of("canary"), _opened(repository, triton) as (opened, servers):
        rollout.start_canary(opened, servers, number, parse_share(share), report)


def promote(*, repository: RepositoryOption, triton: TritonOption = []) -> None:
    """Make the canary the version of all sessions."""
    from whisperline_models import rollout

    with errors_of("promote"), _opened(repository, triton) as (opened, servers):
        rollout.promote(opened, servers, report)


def rollback(*, repository: RepositoryOption, triton: TritonOption = []) -> None:
    """Take the canary's sessions back; without a canary, return to the version before."""
    from whisperline_models import rollout

    with errors_of("rollback"), _opened(repository, triton) as (opened, servers):
        rollout.roll_back(opened, servers, report)


def remove(
    number: Annotated[int, typer.Argument(min=1, help="the version's number")],
    *,
    repository: RepositoryOption,
    triton: TritonOption = [],
    drain_s: Annotated[float, typer.Option(min=0, help="least seconds since the routing last changed")] = DRAIN_S,
) -> None:
    """Unload a version that serves no session, once its last requests are answered, and delete it."""
    from whisperline_models import rollout

    with errors_of("remove"), _opened(repository, triton) as (opened, servers):
        rollout.remove(opened, servers, number, drain_s, report)


def list_versions(*, repository: RepositoryOption, triton: TritonOption = []) -> None:
    """Show the versions with their gates and shares of sessions, and where they are loaded."""
    from whisperline_models.manifest import Manifest

    with errors_of("list"), _opened(repository, triton) as (opened, servers):
        loaded: dict[str, list[int] | None] = {}
        for server in servers:
            try:
                loaded[server.address] = server.loaded()
            except ServerError as error:
                report(str(error))
                loaded[server.address] = None
        rollout = opened.rollout()
        table = Table("version", "model", "precision", "gate", "sessions", *loaded)
        for number in opened.versions():
            manifest = Manifest.read(opened.folder(number))
            if manifest.gate is not None and manifest.gate.content == manifest.content:
                verdict = "passed" if manifest.gate.passed else "FAILED"
                gate = f"{verdict}, {manifest.gate.word_error_rate:.2%} on {manifest.gate.set_name}"
            else:
                gate = f"none: {manifest.waiver.reason}" if manifest.waiver else "none"
            if rollout is None:
                sessions = ""
            elif rollout.canary and number == rollout.canary.version:
                sessions = f"canary, {rollout.canary.share:.0%}"
            elif number == rollout.default:
                sessions = f"default, {1 - (rollout.canary.share if rollout.canary else 0):.0%}"
            else:
                sessions = "before" if number in rollout.previous else "none"
            where = ("?" if found is None else "loaded" if number in found else "-" for found in loaded.values())
            table.add_row(str(number), manifest.model, manifest.precision, gate, sessions, *where)
        console.print(table)


@contextmanager
def _opened(path: Path, addresses: list[str]) -> Iterator[tuple[Repository, list[Server]]]:
    """Yield the repository, and a connection to every server behind the addresses."""
    from whisperline_models.rollout import Repository, Server, resolve

    with ExitStack() as stack:
        yield Repository(path), [stack.enter_context(Server(address)) for address in resolve(addresses)]
