"""Files and folders appear whole or not at all."""

import hashlib
from pathlib import Path

import pytest
from whisperline_models.files import UNFINISHED, atomic_folder, sha256_of_file, write_atomically


def test_a_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    """The target appears only at the end of the block, complete, and no scratch folder is left."""
    target = tmp_path / "target"
    with atomic_folder(target, tmp_path) as written:
        (written / "inside").mkdir()
        (written / "inside" / "file").write_text("content")
        assert not target.exists()
        assert written.parent.name.startswith(UNFINISHED)
    assert (target / "inside" / "file").read_text() == "content"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error in the block removes what was written."""

    def fail() -> None:
        with atomic_folder(tmp_path / "target", tmp_path) as written:
            (written / "file").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_kept(tmp_path: Path) -> None:
    """An existing target is refused and not changed."""
    (tmp_path / "target").mkdir()
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "target", tmp_path):
        pytest.fail("the block was entered")
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


def test_a_file_is_replaced_whole_and_any_user_can_read_it(tmp_path: Path) -> None:
    """The new text replaces the old one in a file that everyone can read, and no other file is left."""
    path = tmp_path / "file"
    for text in ("old", "new"):
        write_atomically(path, text)
        assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    """A file that is read in several pieces has the checksum of its whole content."""
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
