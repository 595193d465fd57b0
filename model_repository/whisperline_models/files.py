"""Write files and folders atomically, and compute checksums.

A file or folder is written under a temporary name on the same file system, flushed to the disk, and renamed. So it
appears whole or not at all, to readers and after a crash.
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
    """Yield a new, empty folder, and rename it to `target` after the block.

    The folder is made inside `scratch`, which must be on the file system of `target`. An error in the block leaves
    nothing behind. Raises `FileExistsError` if `target` exists.
    """
    if target.exists():
        raise FileExistsError(target)
    for folder in (scratch, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # Rename a folder inside the temporary one, so that the latter still exists when `TemporaryDirectory` deletes it.
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=scratch) as temporary:
        written = Path(temporary) / "written"
        written.mkdir()
        yield written
        # Flush the content before the rename: after a crash, the name must not exist without its content.
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
        os.fchmod(file.fileno(), 0o644)  # mkstemp's mode allows only the owner to read, but Triton is another user
        os.fsync(file.fileno())
    Path(name).replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which may be larger than the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
