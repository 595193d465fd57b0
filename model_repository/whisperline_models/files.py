"""Files and folders that appear whole or not at all, and their checksums.

Each is written beside its place, flushed to the disk and renamed into it. Neither a reader nor a crash sees half of it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNFINISHED = ".unfinished-"  # a killed process may leave files and folders with this prefix


@contextmanager
def atomic_folder(target: Path, scratch: Path) -> Iterator[Path]:
    """Yield a new folder to fill, and rename it to `target` afterwards.

    `scratch` is where it is filled, on the file system of `target`. An error inside the block leaves nothing behind.
    Raises `FileExistsError` if `target` exists.
    """
    if target.exists():
        raise FileExistsError(target)
    for folder in (scratch, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # a folder inside the temporary one, which is still there to be deleted after the rename
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=scratch) as temporary:
        written = Path(temporary) / "written"
        written.mkdir()
        yield written
        # first the content, then the name: after a crash a name must not stand for content that never came to the disk
        for path in [*written.rglob("*"), written]:
            fsync(path)
        written.rename(target)
    fsync(target.parent)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file: a reader sees the old text or the new one, also after a crash."""
    descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # mkstemp lets its owner alone read, but Triton runs as another user
        os.fsync(file.fileno())
    Path(name).replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Bring a file, or the list of names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file. The file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
