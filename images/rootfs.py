"""Collect what a program needs into a folder that becomes an image: an interpreter, its packages and their libraries.

Runs in the builder of each Dockerfile with the builder's own Python and its standard library alone. What is not
collected is not in the image: no shell, no package manager, no compiler, but those that are named.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

UID = 65532
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ACCOUNTS = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\nwhisperline:x:{UID}:{UID}:whisperline:/tmp:/nonexistent\n",
    "etc/group": f"root:x:0:\nwhisperline:x:{UID}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# modules of the standard library to leave out: they need further libraries, or are for interactive use
UNUSED_MODULES = {
    *("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "turtle.py", "venv"),
    *("curses", "dbm", "sqlite3", "site-packages", "dist-packages", "__pycache__"),
}
UNUSED_EXTENSIONS = re.compile(
    r"(_curses|_dbm|_gdbm|_sqlite3|_test|_tkinter|_ctypes_test|_xx|xx|nis|ossaudio|readline)"
)
UNUSED_PACKAGE_FOLDERS = {"__pycache__", "test", "tests"}
FOUND_AT_RUN_TIME = {"libgcc_s.so.1"}  # `ldd` does not list it: glibc opens it when a thread is cancelled
OF_THE_DRIVER = re.compile(r"lib(cuda|cudadebugger|nvidia-[a-z-]+)\.so")  # the container runtime mounts the host's


@dataclass
class Rootfs:
    """The folder of the image, with a record of its ELF files and of the origin of each file."""

    root: Path
    elf_files: list[Path] = field(default_factory=list)
    from_packages: set[Path] = field(default_factory=set)
    bundled: set[str] = field(default_factory=set)  # libraries inside packages, which load them by path

    def text(self, path: str, content: str) -> None:
        """Write a file."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def copy(self, source: Path, target: Path | None = None) -> None:
        """Copy a file or a link to the same place, or another."""
        copied = self.root / (target or source).relative_to("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        if copied.is_symlink() or copied.exists():
            return
        shutil.copy2(source, copied, follow_symlinks=False)
        if not source.is_symlink() and source.stat().st_size > 4 and _is_elf(source):
            self.elf_files.append(source)

    def tree(self, folder: Path, unused: set[str]) -> None:
        """Copy a file, or a folder without the entries that have one of these names."""
        if folder.is_symlink() or folder.is_file():
            self.copy(folder)
            return
        for entry in folder.iterdir():
            if entry.name not in unused:
                self.tree(entry, unused)

    def program(self, path: Path) -> None:
        """Copy a program of the system, with every link on the way to it."""
        while path.is_symlink():
            self.copy(path.parent.resolve() / path.name)
            path = path.parent.resolve() / os.readlink(path)
        self.copy(path.resolve())
        self.from_packages.add(path.resolve())

    def libraries(self, multiarch: Path, named: Iterable[Path]) -> None:
        """Copy the shared libraries of all ELF files so far into a folder that the loader searches without a cache."""
        found = {path.name: path for path in named}
        self.bundled = {elf.name for elf in self.elf_files}
        for elf in [*self.elf_files, *found.values()]:
            found.update(self._linked(elf))
        for name, path in sorted(found.items()):
            if (self.root / path.relative_to("/")).exists():
                continue
            self.copy(path.resolve(), path if name.startswith("/") else multiarch / name)
            self.from_packages.update((path, path.resolve()))

    def _linked(self, elf: Path) -> Iterator[tuple[str, Path]]:
        said = subprocess.run(["ldd", elf], capture_output=True, text=True, check=False).stdout
        for line in said.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if OF_THE_DRIVER.match(name):
                continue
            if rest.startswith("not found") and name not in self.bundled:
                raise SystemExit(f"{elf} needs {name}, which is not in the builder")
            if arrow and rest.startswith("/"):
                yield name, Path(rest.split(" (")[0])
            elif not arrow and name.startswith("/"):
                yield name.split(" (")[0], Path(name.split(" (")[0])

    def package_records(self) -> None:
        """Record the Debian packages that files came from, with their copyright, where scanners look for them."""
        packages = {name for path in self.from_packages if (name := _package_of(path))}
        for package in sorted(packages):
            status = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True)
            self.text(f"var/lib/dpkg/status.d/{package}", status.stdout)
            notice = Path("/usr/share/doc", package, "copyright")
            if notice.exists():
                self.copy(notice.resolve(), notice)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _package_of(path: Path) -> str | None:
    for candidate in (path, Path("/", *path.parts[2:])):  # dpkg may list a file in /usr/lib under /lib
        done = subprocess.run(["dpkg", "-S", candidate], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return None


def _interpreter(rootfs: Rootfs) -> None:
    rootfs.program(Path(sys.executable))
    stdlib = Path(sysconfig.get_path("stdlib"))
    for entry in stdlib.iterdir():
        if entry.name in UNUSED_MODULES or entry.name.startswith("config-"):
            continue
        if entry.name != "lib-dynload":
            rootfs.tree(entry, UNUSED_PACKAGE_FOLDERS)
            continue
        for extension in entry.iterdir():
            if not UNUSED_EXTENSIONS.match(extension.name):
                rootfs.copy(extension)


def _environment(rootfs: Rootfs, folder: Path, scripts: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.name not in ("bin", "include", "share"):
            rootfs.tree(entry, UNUSED_PACKAGE_FOLDERS)
    for entry in (folder / "bin").iterdir():
        if entry.name.startswith("python") or entry.name in scripts:
            rootfs.copy(entry)


def _system(rootfs: Rootfs) -> None:
    for name in ("lib", "lib64", "bin", "sbin"):
        if Path("/", name).is_symlink():
            target = Path("/", name).resolve()
            (rootfs.root / target.relative_to("/")).mkdir(parents=True, exist_ok=True)
            (rootfs.root / name).symlink_to(target.relative_to("/"))
    for path, content in ACCOUNTS.items():
        rootfs.text(path, content)
    for path in ("etc/os-release", "etc/debian_version", CERTIFICATES):
        rootfs.text(path, Path("/", path).read_text())


def _compile(root: Path, folders: Iterable[Path]) -> None:
    """Compile the modules, because nothing can be written at run time. Python does not check their sources again."""
    places = [str(root / folder.relative_to("/")) for folder in folders]
    options = ("-q", "-j0", "--invalidation-mode=unchecked-hash", "-s", str(root), "-p", "/")
    subprocess.run([sys.executable, "-m", "compileall", *options, *places], check=False, stdout=subprocess.DEVNULL)


def _protect(root: Path) -> None:
    """Make root the owner of all files, which others can read but not write."""
    for path in [root, *root.rglob("*")]:
        os.lchown(path, 0, 0)
        if not path.is_symlink():
            is_executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_executable else 0o644)


def _folder(root: Path, path: Path, mode: int, uid: int) -> None:
    made = root / path.relative_to("/")
    made.mkdir(parents=True, exist_ok=True)
    made.chmod(mode)
    os.chown(made, uid, uid)


def _matches(patterns: Iterable[str]) -> list[Path]:
    found = []
    for pattern in patterns:
        matching = [Path(pattern)] if Path(pattern).exists() else sorted(Path("/").glob(pattern.lstrip("/")))
        if not matching:
            raise SystemExit(f"{pattern} is not in the builder")
        found += matching
    return found


def main() -> None:
    """Collect into the folder everything that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--environment", type=Path, required=True, help="the virtual environment of the program")
    parser.add_argument("--script", action="append", default=[], help="a command of the environment to keep")
    parser.add_argument("--program", type=Path, action="append", default=[], help="a program of the system to keep")
    parser.add_argument("--tree", action="append", default=[], help="files and folders to keep as they are (a pattern)")
    parser.add_argument("--library", action="append", default=[], help="libraries that are opened by name (a pattern)")
    parser.add_argument("--writable", type=Path, action="append", default=[], help="a folder to make for the user")
    arguments = parser.parse_args()

    rootfs = Rootfs(arguments.root)
    multiarch = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu")
    _system(rootfs)
    _interpreter(rootfs)
    _environment(rootfs, arguments.environment, set(arguments.script))
    for program in arguments.program:
        rootfs.program(program)
    for path in _matches(arguments.tree):
        rootfs.tree(path, {"__pycache__"})
    opened = [multiarch / name for name in FOUND_AT_RUN_TIME]
    rootfs.libraries(multiarch, [*opened, *_matches(arguments.library)])
    rootfs.package_records()
    _compile(arguments.root, (Path(sysconfig.get_path("stdlib")), arguments.environment))
    _protect(arguments.root)
    _folder(arguments.root, Path("/tmp"), 0o1777, 0)  # noqa: S108 - of the image, not of the builder
    for folder in arguments.writable:
        _folder(arguments.root, folder, 0o755, UID)


if __name__ == "__main__":
    main()
