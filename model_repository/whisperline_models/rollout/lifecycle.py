"""Bring versions into service and out of it, under load, without a failed request.

This relies on the observed behaviour of Triton 2.51 in explicit control mode. When a model is loaded again, versions
whose files are unchanged keep their processes, new versions start, and versions whose folder is gone answer the
requests that they have accepted, then stop. If a version cannot be loaded, the others go on.

A version that is neither the default nor the canary gets no new sessions. But a client may cache the routing for a
while, so `remove` waits until the routing has been unchanged for `drain_s`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from whisperline_models.errors import GateError, ServerError, VersionError
from whisperline_models.manifest import Manifest, Waiver, utc_now
from whisperline_models.rollout.repository import MODEL, ROLLOUT_MODEL, Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from whisperline_models.rollout.servers import Server

    Report = Callable[[str], None]  # takes one line for the user


def publish(folder: Path, repository: Repository, servers: Sequence[Server], waiver: str | None, report: Report) -> int:
    """Copy a version to the repository under the next number and load it. Returns the number.

    The version gets no sessions, unless it is the first. `waiver` is the reason for publishing without a gate. Raises
    `GateError` unless exactly this content passed its gate against the version now in service, and `ServerError` if the
    version does not load or answer. After an error, the version is removed again and the servers are as before.
    """
    manifest = Manifest.read_checked(folder)
    with repository.changing():
        if waiver is None:
            _check_gate(manifest, repository.in_service(), folder)
        else:
            excuse = Waiver(content=manifest.content, reason=waiver, waived_at=utc_now())
            manifest = manifest.model_copy(update={"waiver": excuse})
        first = repository.rollout() is None
        if first and repository.versions():
            raise VersionError(f"{repository.path} has versions but no {ROLLOUT_MODEL}: publish into a new repository")
        number = repository.add_first(folder, manifest) if first else repository.add(folder, manifest)
        report(f"version {number} is in {repository.path}: {manifest.model}, {manifest.precision}")
        try:
            for server in servers:
                server.load(MODEL)
                if first:
                    server.load(ROLLOUT_MODEL)
                seconds = server.check(number)
                report(f"{server.address} has loaded version {number}; it answers in {seconds:.2f} s")
            if not servers:
                report("no server was named: servers load it when they start, or when asked")
        except BaseException as error:  # including Ctrl-C: the version has not been confirmed to serve
            if first:
                repository.stop_routing(number)
            with repository.set_aside(number):
                _reload(servers, report)
            if isinstance(error, ServerError):
                raise ServerError(f"{error}\nversion {number} is out again, what was in service still is") from error
            raise
    return number


def start_canary(repository: Repository, servers: Sequence[Server], number: int, share: float, report: Report) -> None:
    """Give a share of sessions to a version, after checking that it answers on every server."""
    with repository.changing():
        repository.folder(number)
        rollout = repository.routing().with_canary(number, share)
        _check_answers(servers, number, report)
        repository.route(rollout)
    report(f"{share:.0%} of sessions are on version {number}, the others on {rollout.default}")


def promote(repository: Repository, servers: Sequence[Server], report: Report) -> None:
    """Make the canary the default, for all sessions."""
    with repository.changing():
        before = repository.routing()
        after = before.promoted()
        repository.folder(after.default)
        _check_answers(servers, after.default, report)
        repository.route(after)
    report(f"all sessions are on version {after.default}; `rollback` returns to {before.default}")


def roll_back(repository: Repository, servers: Sequence[Server], report: Report) -> None:
    """Drop the canary. Without a canary, return to the previous default."""
    with repository.changing():
        before = repository.routing()
        after = before.rolled_back()
        repository.folder(after.default)
        if before.canary is None:  # sessions return to a version that has had none for a while
            _check_answers(servers, after.default, report)
        repository.route(after)
    left = before.canary.version if before.canary else before.default
    report(f"all sessions are on version {after.default}; {left} gets no more, and stays loaded")


def remove(repository: Repository, servers: Sequence[Server], number: int, drain_s: float, report: Report) -> None:
    """Unload a version that serves no session, once it has answered the requests it accepted, and delete it."""
    with repository.changing():
        repository.folder(number)
        if repository.versions() == [number]:
            raise VersionError(f"version {number} is the last one: publish and promote another first")
        before = repository.routing()
        after = before.without(number)
        left_s = before.changed_unix_s + drain_s - time.time()
        if left_s > 0:
            report(f"the routing changed a moment ago: waiting {left_s:.0f} s for requests under way")
            time.sleep(min(left_s, drain_s))
        try:
            with repository.set_aside(number):
                # tell all servers before waiting for any, so that they unload at the same time
                for server in servers:
                    server.load(MODEL)
                for server in servers:
                    if not server.wait_unloaded(number):
                        stays = "gets no requests, but its process stays until the server restarts"
                        report(f"{server.address}: version {number} {stays}")
        except ServerError as error:
            _reload(servers, report)
            raise ServerError(f"{error}\nversion {number} stays") from error
        if after != before:  # the version was one of those that `rollback` could return to
            repository.route(after)
    report(f"version {number} is removed; versions {', '.join(map(str, repository.versions()))} are left")


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


def _check_answers(servers: Sequence[Server], number: int, report: Report) -> None:
    if not servers:
        raise VersionError("name the servers with --triton: the version must answer there before sessions come to it")
    for server in servers:
        report(f"{server.address}: version {number} answers in {server.check(number):.2f} s")


def _reload(servers: Sequence[Server], report: Report) -> None:
    """Let every reachable server load what is in the repository now."""
    for server in servers:
        try:
            server.load(MODEL)
        except ServerError as error:
            report(f"not reloaded: {error}")
