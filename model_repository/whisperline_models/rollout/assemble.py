"""Lays out the repository of one Triton server from versions that travelled as folders, where no command runs later.

For a container that starts afresh: the versions come as images, and which of them serves is said by its arguments or
by a file that is replaced while it serves. What an assembly made before is made anew; a repository that was published
to is left alone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from whisperline_models.errors import VersionError
from whisperline_models.files import write_whole
from whisperline_models.manifest import Manifest
from whisperline_models.rollout.repository import CONFIG, MODEL, ROLLOUT_MODEL, Repository
from whisperline_models.routing.state import Rollout, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NOTE = ".assembled"


@dataclass(frozen=True)
class Assembly:
    """What to lay out: folders by their numbers, how sessions are routed, and parameters of serving.

    `routing` is a file that holds the routing, now and later: then `rollout` is not used.
    """

    versions: Mapping[int, Path]
    rollout: Rollout | None = None
    routing: Path | None = None
    parameters: Mapping[str, int] | None = None

    def check(self) -> Rollout:
        """The routing that will be in force. Raises `VersionError` where `rollout` names a version that is not there.

        A file may name one that is yet to come to this server: the routing's model then keeps to those that are there.
        """
        rollout = self.rollout if self.routing is None else _read(self.routing)
        if rollout is None:
            raise VersionError("name the version that serves with --default, or a file with --routing")
        named = [rollout.default, *([rollout.canary.version] if rollout.canary else [])]
        missing = [number for number in named if number not in self.versions]
        if missing and self.routing is None:
            raise VersionError(f"version {missing[0]} is to serve, but only {sorted(self.versions)} are there")
        return rollout


def assemble(repository: Repository, assembly: Assembly, tell: Callable[[str], None]) -> None:
    """Lay the versions out, every file held against its manifest; they are copied, and may be read-only.

    Raises `VersionError` where a version is not what was exported, one has another interface than the others, or the
    repository was not made by an assembly.
    """
    rollout = assembly.check()
    with repository.changing():
        _clear(repository)
        for number, folder in sorted(assembly.versions.items()):
            manifest = Manifest.read(folder)
            repository.add(folder, manifest, number)
            tell(f"version {number}: {manifest.model}, {manifest.precision}, {manifest.content[:12]}")
        if assembly.parameters:
            _set_parameters(repository.model / CONFIG, assembly.parameters)
        repository.start_routing(rollout.default)
        if assembly.routing is None:
            repository.route(rollout)
        else:
            _link(repository.path / ROLLOUT_MODEL / "rollout.json", assembly.routing)
    tell(f"version {rollout.default} serves" + (f", {rollout.canary.version} as canary" if rollout.canary else ""))


def parse_version(text: str) -> tuple[int, Path]:
    """Read "3=/versions/3". Raises `VersionError`."""
    number, equals, folder = text.partition("=")
    if not equals or not number.isdecimal() or int(number) < 1:
        raise VersionError(f"--version {text!r} is no number and folder, such as 3=/versions/3")
    return int(number), Path(folder)


def _read(routing: Path) -> Rollout:
    try:
        return Rollout.from_json(routing.read_text())
    except (OSError, RolloutError) as error:
        raise VersionError(f"{routing}: {error}") from error


def _clear(repository: Repository) -> None:
    note = repository.path / _NOTE
    if repository.versions() and not note.exists():
        raise VersionError(f"{repository.path} was published to: assemble into another folder")
    note.touch()
    for name in (MODEL, ROLLOUT_MODEL):
        shutil.rmtree(repository.path / name, ignore_errors=True)


def _set_parameters(config: Path, parameters: Mapping[str, int]) -> None:
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    for name, value in parameters.items():
        parsed.parameters[name].string_value = str(value)
    write_whole(config, text_format.MessageToString(parsed))


def _link(link: Path, target: Path) -> None:
    link.unlink()
    link.symlink_to(target.absolute())
