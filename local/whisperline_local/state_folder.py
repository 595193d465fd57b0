"""The files of a state folder: its lock, its secrets, its logs and its status."""

import fcntl
import os
import secrets
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict

from whisperline_local.errors import AlreadyRunning
from whisperline_local.settings import ENV_PREFIX

STATUS_FILE = "status.json"


class Secrets(BaseModel):
    """The secrets that the processes of one stack share."""

    model_config = ConfigDict(frozen=True)

    postgres_password: str
    token_secret: str


def load_secrets(state: Path) -> Secrets:
    """Return the secrets of a state folder. The first call makes them, readable by their owner alone."""
    path = state / "secrets.json"
    if not path.exists():
        made = Secrets(postgres_password=secrets.token_urlsafe(24), token_secret=secrets.token_urlsafe(48))
        write_whole(path, made.model_dump_json(), mode=0o600)
    return Secrets.model_validate_json(path.read_text())


def take_state_folder(state: Path) -> TextIO:
    """Lock a state folder for this process until the file returned is closed. Raises `AlreadyRunning`."""
    state.mkdir(parents=True, exist_ok=True)
    lock = (state / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise AlreadyRunning(
            f"A stack already runs on {state} (see `whisperline-local status`). Stop it, or give this one another "
            f"folder and other ports: {ENV_PREFIX}STATE_DIR and {ENV_PREFIX}PORT_OFFSET."
        ) from error
    return lock


def fresh_log(logs: Path, name: str) -> Path:
    """Return the path of a service's log, and keep the log of the run before as `NAME.previous.log`."""
    log = logs / f"{name}.log"
    logs.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.rename(logs / f"{name}.previous.log")
    return log


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file so that readers see the old text or the new one, and never a part of it."""
    unfinished = path.with_suffix(".unfinished")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    unfinished.rename(path)
