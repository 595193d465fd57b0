"""Lay out the repository of a Triton server that starts afresh, from versions in folders.

No command runs against such a repository later. The versions come as images, and which of them serves is said by
arguments, or by a file that is replaced while the server runs. Each assembly makes everything anew, but it leaves a
repository alone that commands have published to.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from whisperline_models.errors import RolloutError, VersionError
from whisperline_models.files import write_atomically
from whisperline_models.manifest import Manifest
from whisperline_models.rollout.repository import CONFIG, MODEL, ROLLOUT_MODEL, Repository, read_rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from whisperline_models.routing.state import Rollout

_NOTE = ".assembled"  # a file in every repository that an assembly made


def assemble(
    repository: Repository,
    versions: Mapping[int, Path],
    routing: Rollout | Path,
    parameters: Mapping[str, int],
    report: Callable[[str], None],
) -> None:
    """Copy the versions in under their numbers, every file compared with its manifest. The folders may be read-only.

    `routing` is the routing of sessions, or a `rollout.json` that is linked, so that replacing it changes the routing.
    `parameters` replace those in `config.pbtxt`. Raises `VersionError` if a version is not what was exported, if its
    interface differs from the others', if the routing names a version that is not there, or if the repository was not
    made by an assembly.
    """
    if isinstance(routing, Path):
        # It may name a version that this server gets later: the routing's model then keeps to those that are there.
        try:
            rollout = read_rollout(routing)
        except (OSError, RolloutError) as error:
            raise VersionError(f"{routing}: {error}") from error
    else:
        rollout = routing
        named = [rollout.default, *([rollout.canary.version] if rollout.canary else [])]
        missing = [number for number in named if number not in versions]
        if missing:
            raise VersionError(f"version {missing[0]} is to serve, but only {sorted(versions)} are there")

    with repository.changing():
        note = repository.path / _NOTE
        if repository.versions() and not note.exists():
            raise VersionError(f"{repository.path} was published to: assemble into another folder")
        note.touch()  # before anything is made: half of an assembly must be known as one, too
        for name in (MODEL, ROLLOUT_MODEL):
            shutil.rmtree(repository.path / name, ignore_errors=True)
        for number, folder in sorted(versions.items()):
            manifest = Manifest.read(folder)
            repository.add(folder, manifest, number)
            report(f"version {number}: {manifest.model}, {manifest.precision}, {manifest.content[:12]}")
        if parameters:
            config = repository.model / CONFIG
            parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
            for name, value in parameters.items():
                parsed.parameters[name].string_value = str(value)
            write_atomically(config, text_format.MessageToString(parsed))
        repository.start_routing(rollout.default)
        if isinstance(routing, Path):
            repository.rollout_file.unlink()
            repository.rollout_file.symlink_to(routing.absolute())
        else:
            repository.route(rollout)
    report(f"version {rollout.default} serves" + (f", {rollout.canary.version} as canary" if rollout.canary else ""))
