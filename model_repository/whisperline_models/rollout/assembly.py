"""Make the repository of a Triton server that is about to start, from versions in folders.

This is for servers whose versions come as images: no other command changes such a repository later. The routing comes
from arguments, or from a file that may be replaced while the server runs. Each assembly replaces the previous one, but
refuses to touch a repository that `publish` has written to.
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

_NOTE = ".assembled"  # marks a repository that was made by an assembly


def assemble(
    repository: Repository,
    versions: Mapping[int, Path],
    routing: Rollout | Path,
    parameters: Mapping[str, int],
    report: Callable[[str], None],
) -> None:
    """Copy the versions to the repository under their numbers, and check every file. The folders may be read-only.

    `routing` is the routing of sessions, or the path of a `rollout.json` to link to: replacing that file changes the
    routing. `parameters` replace those in `config.pbtxt`. Raises `VersionError` if a version has changed since its
    export, if the versions' interfaces differ, if the routing names a missing version, or if the repository was not
    made by an assembly.
    """
    if isinstance(routing, Path):
        # It may name a version that this server does not have yet; `routing/model.py` then uses the newest it has.
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
        note.touch()  # first, so that an unfinished assembly is recognised as one
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
