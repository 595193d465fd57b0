"""Brings versions into service and out of it, under load, without a failed request.

What this rests on, seen with Triton 2.51 in explicit control mode: loading a model anew leaves the versions whose
files are unchanged in their processes, starts those that are new, and lets those whose folder has gone answer what
they had taken; a version that cannot be loaded leaves the others as they are. A version that is neither the default
nor the canary gets no new sessions, so it goes only after the routing has left it for `drain_s`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from whisperline_models.errors import GateError, ServerError, VersionError
from whisperline_models.manifest import Manifest, Waiver, checked
from whisperline_models.rollout.repository import MODEL, ROLLOUT_MODEL, Repository, in_service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from whisperline_models.rollout.servers import Server
    from whisperline_models.routing.state import Rollout

    Tell = Callable[[str], None]


def publish(folder: Path, repository: Repository, servers: Sequence[Server], waiver: str | None, tell: Tell) -> int:
    """Copy a version into the repository as the next one and load it; returns its number.

    It gets no sessions, unless it is the first. Raises `GateError` without a passing gate for exactly this content
    against the version now in service (`waiver`: the reason to go without), and `ServerError` where it does not load
    or answer: then it is out again and the servers are as before.
    """
    manifest = checked(folder)
    with repository.changing():
        if waiver is None:
            _check_gate(manifest, in_service(repository), folder)
        else:
            excuse = Waiver(content=manifest.content, reason=waiver, waived_at=now())
            manifest = manifest.model_copy(update={"waiver": excuse})
        first = _is_first(repository)
        number = repository.add_first(folder, manifest) if first else repository.add(folder, manifest)
        tell(f"version {number} is in {repository.path}: {manifest.model}, {manifest.precision}")
        try:
            _load(servers, number, first, tell)
        except ServerError as error:
            _take_out(repository, servers, number, first, tell)
            raise ServerError(f"{error}\nversion {number} is out again, what was in service still is") from error
        except BaseException:  # Ctrl-C, say: nobody has said that it serves
            _take_out(repository, servers, number, first, tell)
            raise
    return number


def start_canary(repository: Repository, servers: Sequence[Server], number: int, share: float, tell: Tell) -> None:
    """Give a share of sessions to a version, which must answer on every server."""
    with repository.changing():
        repository.folder(number)
        rollout = repository.routing().with_canary(number, share)
        _check_answers(servers, number, tell)
        repository.route(rollout)
    tell(f"{share:.0%} of sessions are on version {number}, the others on {rollout.default}")


def promote(repository: Repository, servers: Sequence[Server], tell: Tell) -> None:
    """Make the canary the default of all sessions."""
    with repository.changing():
        before = repository.routing()
        after = before.promoted()
        repository.folder(after.default)
        _check_answers(servers, after.default, tell)
        repository.route(after)
    tell(f"all sessions are on version {after.default}; `rollback` returns to {before.default}")


def roll_back(repository: Repository, servers: Sequence[Server], tell: Tell) -> None:
    """Drop the canary, or else return to the default before."""
    with repository.changing():
        before = repository.routing()
        after = before.rolled_back()
        repository.folder(after.default)
        if before.canary is None:
            _check_answers(servers, after.default, tell)
        repository.route(after)
    left = before.canary.version if before.canary else before.default
    tell(f"all sessions are on version {after.default}; {left} gets no more, and stays loaded")


def remove(repository: Repository, servers: Sequence[Server], number: int, drain_s: float, tell: Tell) -> None:
    """Unload a version that serves nobody, when it has answered what it had taken, and delete it."""
    with repository.changing():
        repository.folder(number)
        if repository.versions() == [number]:
            raise VersionError(f"version {number} is the last one: publish and promote another first")
        before = repository.routing()
        after = before.without(number)
        _drain(before, drain_s, tell)
        try:
            with repository.set_aside(number):
                for server in servers:
                    server.load(MODEL)
                for server in servers:
                    _wait_unloaded(server, number, tell)
        except ServerError as error:
            _reload(servers, tell)
            raise ServerError(f"{error}\nversion {number} stays") from error
        if after != before:
            repository.route(after)
    tell(f"version {number} is removed; versions {', '.join(map(str, repository.versions()))} are left")


def now() -> str:
    """The time in UTC, for a manifest."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_first(repository: Repository) -> bool:
    if repository.rollout() is not None:
        return False
    if repository.versions():
        raise VersionError(f"{repository.path} has versions but no {ROLLOUT_MODEL}: publish into a new repository")
    return True


def _check_gate(manifest: Manifest, serving: tuple[int, Manifest] | None, folder: Path) -> None:
    gate, again = manifest.gate, f"run `verify {folder}` with --against this repository"
    if gate is None:
        raise GateError(f"{folder} has no gate: {again}")
    if gate.content != manifest.content:
        raise GateError(f"{folder} is not what its gate was passed with: {again}")
    if not gate.passed:
        raise GateError(f"{folder} has failed its gate: see `verify`'s table; export a better one")
    if serving is not None and gate.against != serving[1].content:
        raise GateError(f"{folder} was not held against version {serving[0]}, which is in service: {again}")


def _load(servers: Sequence[Server], number: int, first: bool, tell: Tell) -> None:
    for server in servers:
        server.load(MODEL)
        if first:
            server.load(ROLLOUT_MODEL)
        tell(f"{server.address} has loaded version {number}; it answers in {server.check(number):.2f} s")
    if not servers:
        tell("no server was named: servers load it when they start, or when asked")


def _take_out(repository: Repository, servers: Sequence[Server], number: int, first: bool, tell: Tell) -> None:
    if first:
        repository.stop_routing(number)
    with repository.set_aside(number):
        _reload(servers, tell)


def _reload(servers: Sequence[Server], tell: Tell) -> None:
    """Bring every server in line with the folder again, as far as it can be reached."""
    for server in servers:
        try:
            server.load(MODEL)
        except ServerError as error:
            tell(f"not reloaded: {error}")


def _wait_unloaded(server: Server, number: int, tell: Tell) -> None:
    if not server.wait_unloaded(number):
        tell(f"{server.address}: version {number} gets no requests, but its process stays until the server restarts")


def _check_answers(servers: Sequence[Server], number: int, tell: Tell) -> None:
    if not servers:
        raise VersionError("name the servers with --triton: the version must answer there before sessions come to it")
    for server in servers:
        tell(f"{server.address}: version {number} answers in {server.check(number):.2f} s")


def _drain(rollout: Rollout, drain_s: float, tell: Tell) -> None:
    left_s = rollout.changed_unix_s + drain_s - time.time()
    if left_s > 0:
        tell(f"the routing changed a moment ago: waiting {left_s:.0f} s for requests under way")
        time.sleep(min(left_s, drain_s))
