"""Fetch published archives into the cache once, and check the sha256 of each."""

import asyncio
import hashlib
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from whisperline_local.errors import StepFailed
from whisperline_local.process import ReportStep, ignore_step, run_tool
from whisperline_local.settings import LocalSettings

INDEX_HINT = "Is the package index reachable? pip's own configuration is used (`python -m pip config list`)."


@dataclass(frozen=True)
class Archive:
    """A published archive: a wheel from the Python package index, or a package from npm's registry.

    `sha256` is the digest of the published file. `members` are the files to unpack, or folders, which end in a slash.
    """

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]
    npm: bool = False

    @property
    def folder(self) -> str:
        """The name of the archive's folder in the cache, which differs for each version and digest."""
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


async def fetch(archive: Archive, settings: LocalSettings, report_step: ReportStep = ignore_step) -> Path:
    """Return the folder that holds the archive's members; download them first unless they are in the cache.

    Raises `StepFailed` if the archive cannot be fetched or is not the published file.
    """
    folder = settings.cache / archive.folder
    if folder.is_dir():
        return folder
    # Work in a scratch folder until the archive is checked, so that the cache never holds an unfinished or wrong one.
    with scratch_folder(settings.cache) as scratch:
        download = scratch / "download"
        download.mkdir()
        requirement = f"{archive.name}{'@' if archive.npm else '=='}{archive.version}"
        command: tuple[str, ...]
        if archive.npm:
            # Give up after 30 s and one retry, because `demo_speech` has another clip to fall back on.
            patience = ("--fetch-timeout=30000", "--fetch-retries=1")
            command = ("npm", "pack", "--silent", *patience, "--pack-destination", str(download), requirement)
        else:
            pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input")
            command = (*pip, "--progress-bar=off", "--dest", str(download), requirement)
        log = settings.logs / f"fetch-{archive.name}.log"
        await run_tool(f"fetching {requirement}", command, log, report_step, hint=INDEX_HINT)
        file = next(download.iterdir())
        found = await asyncio.to_thread(sha256_of, file)
        if found != archive.sha256:
            raise StepFailed(
                f"fetching {archive.name} {archive.version}",
                f"the sha256 of {file.name} is {found}, not {archive.sha256}",
                hint="The index served another file than the published one: do not use it.",
            )
        await asyncio.to_thread(extract, archive, file, scratch / "members")
        publish(scratch / "members", folder)
    return folder


async def demo_speech(settings: LocalSettings, report_step: ReportStep = ignore_step) -> Path:
    """Return a WAV file of real speech, 16 kHz mono 16-bit: President Kennedy's sentence, or a reading of Beckett.

    The first comes from npm's registry, for machines that have npm; the second from the Python package index.
    """
    if shutil.which("npm") is not None:
        try:
            return await fetch(JFK, settings, report_step) / JFK.members[0]
        except StepFailed:
            pass  # the registry cannot be reached: use the other clip
    return await fetch(BECKETT, settings, report_step) / BECKETT.members[0]


async def voice_activity_model(settings: LocalSettings, report_step: ReportStep = ignore_step) -> Path:
    """Return the Silero voice-activity model (ONNX)."""
    return await fetch(SILERO, settings, report_step) / SILERO.members[0]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Archive, file: Path, target: Path) -> None:
    """Unpack the wanted members into a new folder. Raises `StepFailed` if one is missing."""

    def is_wanted(name: str) -> bool:
        return any(name == member or (member.endswith("/") and name.startswith(member)) for member in archive.members)

    target.mkdir()
    if archive.npm:
        with tarfile.open(file) as tar:
            tar.extractall(target, [member for member in tar.getmembers() if is_wanted(member.name)], filter="data")
    else:
        with zipfile.ZipFile(file) as wheel:
            for info in wheel.infolist():
                if is_wanted(info.filename) and not info.is_dir():
                    extracted = Path(wheel.extract(info, target))
                    if info.external_attr >> 16 & stat.S_IXUSR:  # zipfile does not restore modes
                        extracted.chmod(0o755)
    missing = [member for member in archive.members if not (target / member).exists()]
    if missing:
        raise StepFailed(f"unpacking {archive.name} {archive.version}", f"it does not hold {', '.join(missing)}")


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield a temporary folder on the file system of `beside`, so that finished work can be renamed into place."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unfinished-") as scratch:
        yield Path(scratch)


def publish(finished: Path, folder: Path) -> None:
    """Rename a finished folder into its place, unless another process has put one there in the meantime."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
