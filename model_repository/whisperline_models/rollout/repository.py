"""A Triton model repository of Whisper's versions, and of who is served by which, on a disk.

<repository>/whisper/config.pbtxt, whisper/<number>/     what is served; a number is used once
<repository>/whisper_rollout/rollout.json                the routing; Triton's model beside it answers from it
"""

from __future__ import annotations

import fcntl
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from whisperline_models.errors import VersionError
from whisperline_models.files import UNFINISHED, flush_entry, write_whole, written_beside
from whisperline_models.manifest import Manifest, checked
from whisperline_models.routing.state import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "whisper"
ROLLOUT_MODEL = "whisper_rollout"
CONFIG = "config.pbtxt"
_ROUTING = Path(__file__).parents[1] / "routing"
_LOCK = ".lock"
_LAST_NUMBER = ".last-version"
_ASIDE = ".removed-"
_FIRST = ".first"


class Repository:
    """The versions in a folder. Changes are made by one process at a time: inside `changing`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other changes out, and sweep up after a killed one. Raises `VersionError` when one is under way."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise VersionError(f"{self.path} is being changed by another command: wait until it is done") from error
            self._sweep()
            yield

    def _sweep(self) -> None:
        for pattern in (f"{UNFINISHED}*", f"*/{UNFINISHED}*", f"{_ASIDE}*"):
            for left in self.path.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
        first = self.path / _FIRST
        if first.exists():
            number = int(first.read_text())
            if self.rollout() is None and number in self.versions():  # no session could come to it
                self._note_number(number)
                shutil.rmtree(self.folder(number))
            first.unlink()

    def versions(self) -> list[int]:
        """The numbers of the versions, ascending."""
        if not self.model.is_dir():
            return []
        return sorted(int(path.name) for path in self.model.iterdir() if path.name.isdecimal() and path.is_dir())

    def folder(self, number: int) -> Path:
        """The folder of a version. Raises `VersionError` where there is none."""
        if number not in self.versions():
            raise VersionError(f"{self.path} has no version {number}, only {self.versions() or 'nothing'}")
        return self.model / str(number)

    def rollout(self) -> Rollout | None:
        """The routing; None before the first version is published. Raises `RolloutError` where it is broken."""
        path = self._rollout_file
        return Rollout.from_json(path.read_text()) if path.exists() else None

    def routing(self) -> Rollout:
        """The routing of a repository that serves. Raises `VersionError` for another."""
        rollout = self.rollout()
        if rollout is None:
            raise VersionError(
                f"{self.path} has no {self._rollout_file.relative_to(self.path)}: publish a version first"
            )
        return rollout

    def route(self, rollout: Rollout) -> None:
        """Put a routing in force, now: Triton's model reads it with the next request."""
        write_whole(self._rollout_file, replace(rollout, changed_unix_s=time.time()).to_json())

    def add(self, source: Path, manifest: Manifest, number: int | None = None) -> int:
        """Copy a version in as the next number, or this one, with this manifest; returns the number.

        `source` may be read-only. Raises `VersionError` where its interface is another or the copy has other sums.
        """
        self._check_interface(source)
        number = number or self._next_number()
        self.model.mkdir(exist_ok=True)
        if not (self.model / CONFIG).exists():
            write_whole(self.model / CONFIG, (source / CONFIG).read_text())
        with written_beside(self.model / str(number), self.path) as written:
            for name in manifest.files:
                (written / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, written / name)
            manifest.write(written)
            checked(written)
        return number

    def add_first(self, source: Path, manifest: Manifest) -> int:
        """`add` a version that serves every session from now on; one without its routing is swept up after a crash."""
        number = self._next_number()
        write_whole(self.path / _FIRST, f"{number}\n")
        self.add(source, manifest, number)
        self.start_routing(number)
        (self.path / _FIRST).unlink()
        return number

    def start_routing(self, number: int) -> None:
        """Install the model that routes sessions, with this version for all of them."""
        with written_beside(self.path / ROLLOUT_MODEL, self.path) as written:
            (written / "1").mkdir()
            for name, target in ((CONFIG, CONFIG), ("model.py", "1/model.py"), ("state.py", "1/state.py")):
                shutil.copyfile(_ROUTING / name, written / target)
            (written / "rollout.json").write_text(Rollout(number, changed_unix_s=time.time()).to_json())

    def stop_routing(self, number: int) -> None:
        """Take the routing model out again, after a first version that did not load; a crash here leaves neither."""
        write_whole(self.path / _FIRST, f"{number}\n")
        aside = self.path / f"{_ASIDE}{ROLLOUT_MODEL}"
        (self.path / ROLLOUT_MODEL).rename(aside)
        shutil.rmtree(aside)

    @contextmanager
    def set_aside(self, number: int) -> Iterator[None]:
        """Take a version out of Triton's sight; it is deleted afterwards, and stands there again after an error."""
        folder, aside = self.folder(number), self.path / f"{_ASIDE}{number}"
        self._note_number(number)
        folder.rename(aside)
        flush_entry(self.model)
        try:
            yield
        except BaseException:
            aside.rename(folder)
            flush_entry(self.model)
            raise
        shutil.rmtree(aside)

    @property
    def _rollout_file(self) -> Path:
        return self.path / ROLLOUT_MODEL / "rollout.json"

    def _next_number(self) -> int:
        """One more than any version before, removed ones too: in answers and logs a number means one content."""
        noted = self.path / _LAST_NUMBER
        last = int(noted.read_text()) if noted.exists() else 0
        return max([last, *self.versions()]) + 1

    def _note_number(self, number: int) -> None:
        write_whole(self.path / _LAST_NUMBER, f"{max(number, self._next_number() - 1)}\n")

    def _check_interface(self, source: Path) -> None:
        """One `config.pbtxt` serves every version: what it says of tensors and responses must hold for this one."""
        served = self.model / CONFIG
        if served.exists() and _interface(served) != _interface(source / CONFIG):
            raise VersionError(
                f"{source} has another interface than {served}: publish it into a new repository and move clients there"
            )


def in_service(repository: Repository) -> tuple[int, Manifest] | None:
    """The default version's number and manifest; None before the first."""
    rollout = repository.rollout()
    return None if rollout is None else (rollout.default, Manifest.read(repository.folder(rollout.default)))


def _interface(config: Path) -> tuple[list[str], list[str], bool]:
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    inputs, outputs = ([f"{t.name} {t.data_type} {list(t.dims)}" for t in ts] for ts in (parsed.input, parsed.output))
    return inputs, outputs, parsed.model_transaction_policy.decoupled
