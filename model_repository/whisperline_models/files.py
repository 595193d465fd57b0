"""Files and folders that are whole or not there: written beside, flushed to the disk, renamed into place."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNFINISHED = ".unfinished-"  # what a killed process may leave begins with this


@contextmanager
def written_beside(target: Path, beside: Path) -> Iterator[Path]:
    """Yield a new folder to fill in `beside`, on the file system of `target`; afterwards it stands at `target`.

    An error inside leaves nothing. Raises `FileExistsError` where `target` exists.
    """
    if target.exists():
        raise FileExistsError(target)
    for folder in (beside, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=beside) as scratch:
        written = Path(scratch) / "written"
        written.mkdir()
        yield written
        flush(written)
        written.rename(target)
    flush_entry(target.parent)


def write_whole(path: Path, text: str) -> None:
    """Replace a file: a reader sees the old text or the new, also after a crash."""
    descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(name).replace(path)
    flush_entry(path.parent)


def flush(folder: Path) -> None:
    """Bring every file and folder under `folder` to the disk."""
    for path in [*folder.rglob("*"), folder]:
        flush_entry(path)


def flush_entry(path: Path) -> None:
    """Bring one file, or the list of names of one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
