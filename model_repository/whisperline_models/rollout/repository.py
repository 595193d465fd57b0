"""A Triton model repository on disk: Whisper's versions, and the routing of sessions to them.

<repository>/whisper/config.pbtxt, whisper/<number>/     the versions; each number is used once
<repository>/whisper_rollout/rollout.json                the routing, which the Triton model `whisper_rollout` reads
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

from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import RolloutError, VersionError
from whisperline_models.files import UNFINISHED, atomic_folder, fsync, write_atomically
from whisperline_models.manifest import Manifest
from whisperline_models.routing import state
from whisperline_models.routing.state import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "whisper"
ROLLOUT_MODEL = "whisper_rollout"
CONFIG = "config.pbtxt"
_ROUTING = Path(__file__).parents[1] / "routing"
_LOCK = ".lock"
_LAST_NUMBER = ".last-version"  # the highest number that was ever used
_ASIDE = ".removed-"  # the prefix of folders that are being removed
_FIRST = ".first"  # a file with the number of a first version that has no routing yet


class Repository:
    """The versions in a folder. Every change must be made inside `changing`, which admits one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL
        self.rollout_file = path / ROLLOUT_MODEL / "rollout.json"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Lock the repository for a change, and first remove the remains of a change that was killed.

        Raises `VersionError` if another change is in progress, and `RolloutError` if the routing does not allow the
        change in the block.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise VersionError(f"{self.path} is being changed by another command: wait until it is done") from error
            self._sweep()
            with routing_errors():
                yield

    def _sweep(self) -> None:
        # Triton ignores all of these names: it looks for known models and for numbered versions.
        for pattern in (f"{UNFINISHED}*", f"*/{UNFINISHED}*", f"{_ASIDE}*"):
            for left in self.path.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
        first = self.path / _FIRST
        if first.exists():
            number = int(first.read_text())
            if self.rollout() is None and number in self.versions():  # without a routing, it had no sessions
                self._note_number(number)
                shutil.rmtree(self.folder(number))
            first.unlink()

    def versions(self) -> list[int]:
        """Return the numbers of the versions, ascending."""
        if not self.model.is_dir():
            return []
        return sorted(int(path.name) for path in self.model.iterdir() if path.name.isdecimal() and path.is_dir())

    def folder(self, number: int) -> Path:
        """Return the folder of a version. Raises `VersionError` if there is none."""
        if number not in self.versions():
            raise VersionError(f"{self.path} has no version {number}, only {self.versions() or 'nothing'}")
        return self.model / str(number)

    def rollout(self) -> Rollout | None:
        """Return the routing, None before the first version is published. Raises `RolloutError` if it is broken."""
        return read_rollout(self.rollout_file) if self.rollout_file.exists() else None

    def routing(self) -> Rollout:
        """Return the routing of a repository that serves. Raises `VersionError` if there is none yet."""
        rollout = self.rollout()
        if rollout is None:
            raise VersionError(f"{self.path} has no {ROLLOUT_MODEL}/rollout.json: publish a version first")
        return rollout

    def in_service(self) -> tuple[int, Manifest] | None:
        """Return number and manifest of the default version, None before the first version is published."""
        rollout = self.rollout()
        return None if rollout is None else (rollout.default, Manifest.read(self.folder(rollout.default)))

    def route(self, rollout: Rollout) -> None:
        """Put a routing in force. The routing model reads it with its next request."""
        write_atomically(self.rollout_file, replace(rollout, changed_unix_s=time.time()).to_json())

    def add(self, source: Path, manifest: Manifest, number: int | None = None) -> int:
        """Copy a version to the repository, under `number` or else the next one, and return the number.

        The parameter `languages.<number>` of the model's configuration gets the languages that the version knows. The
        copy gets the given manifest. `source` may be read-only. Raises `VersionError` if its interface differs from
        the repository's, or if the checksums of the copy differ from the manifest.
        """
        served = self.model / CONFIG
        # all versions share one config.pbtxt, so this version must have the tensors and responses that it declares
        if served.exists() and _interface(served) != _interface(source / CONFIG):
            raise VersionError(
                f"{source} has another interface than {served}: publish it into a new repository and move clients there"
            )
        number = number or self._next_number()
        self.model.mkdir(exist_ok=True)
        if not served.exists():
            write_atomically(served, (source / CONFIG).read_text())
        with atomic_folder(self.model / str(number), self.path) as written:
            for name in manifest.files:
                # copy only the files in the manifest: any others are not part of the version
                (written / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, written / name)
            manifest.write(written)
            Manifest.read_checked(written)  # a disk or a network may have corrupted the copy
            # Triton shows this to clients, which can then refuse a language before any audio comes. It is written
            # before the version appears, so that no version is ever without it.
            languages = ",".join(_languages(written, manifest))
            parameter = f'parameters {{ key: "languages.{number}" value: {{ string_value: "{languages}" }} }}\n'
            write_atomically(served, served.read_text() + parameter)
        return number

    def add_first(self, source: Path, manifest: Manifest) -> int:
        """Add the first version and route every session to it. After a crash in between, `_sweep` removes it."""
        number = self._next_number()
        write_atomically(self.path / _FIRST, f"{number}\n")
        self.add(source, manifest, number)
        self.start_routing(number)
        (self.path / _FIRST).unlink()
        return number

    def start_routing(self, number: int) -> None:
        """Install the model that routes sessions, with this version for all of them."""
        with atomic_folder(self.path / ROLLOUT_MODEL, self.path) as written:
            (written / "1").mkdir()
            for name, target in ((CONFIG, CONFIG), ("model.py", "1/model.py"), ("state.py", "1/state.py")):
                shutil.copyfile(_ROUTING / name, written / target)
            (written / "rollout.json").write_text(Rollout(number, changed_unix_s=time.time()).to_json())

    def stop_routing(self, number: int) -> None:
        """Remove the routing model, because the first version did not load.

        After a crash, `_sweep` removes that version, which then has no routing.
        """
        write_atomically(self.path / _FIRST, f"{number}\n")
        aside = self.path / f"{_ASIDE}{ROLLOUT_MODEL}"
        (self.path / ROLLOUT_MODEL).rename(aside)
        shutil.rmtree(aside)

    @contextmanager
    def set_aside(self, number: int) -> Iterator[None]:
        """Hide a version from Triton during the block, and delete it afterwards. An error in the block restores it."""
        folder, aside = self.folder(number), self.path / f"{_ASIDE}{number}"
        self._note_number(number)  # first, so that the number is not used again even after a crash
        folder.rename(aside)
        fsync(self.model)
        try:
            yield
        except BaseException:
            aside.rename(folder)
            fsync(self.model)
            raise
        shutil.rmtree(aside)

    def _next_number(self) -> int:
        """Return the next number. Numbers of removed versions are never reused, so each means one content in logs."""
        noted = self.path / _LAST_NUMBER
        last = int(noted.read_text()) if noted.exists() else 0
        return max([last, *self.versions()]) + 1

    def _note_number(self, number: int) -> None:
        write_atomically(self.path / _LAST_NUMBER, f"{max(number, self._next_number() - 1)}\n")


def read_rollout(path: Path) -> Rollout:
    """Read a `rollout.json`. Raises `RolloutError` if it is invalid."""
    with routing_errors():
        return Rollout.from_json(path.read_text())


@contextmanager
def routing_errors() -> Iterator[None]:
    """Convert errors of `routing.state`, which must not import this package, to this package's `RolloutError`."""
    try:
        yield
    except state.RolloutError as error:
        raise RolloutError(str(error)) from error


def _languages(version: Path, manifest: Manifest) -> list[str]:
    tokenizer_json = (version / "tokenizer.json").read_bytes()
    return sorted(Tokenizer.from_json(tokenizer_json, manifest.dimensions["n_vocab"]).languages)


def _interface(config: Path) -> tuple[list[str], list[str], bool]:
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    inputs, outputs = ([f"{t.name} {t.data_type} {list(t.dims)}" for t in ts] for ts in (parsed.input, parsed.output))
    return inputs, outputs, parsed.model_transaction_policy.decoupled
