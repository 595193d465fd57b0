"""The passwords of one state folder: made once, readable by its owner alone."""

import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Secrets(BaseModel):
    """What the processes of one stack share and nobody else knows."""

    model_config = ConfigDict(frozen=True)

    postgres_password: str
    token_secret: str


def load_secrets(state: Path) -> Secrets:
    """Return the secrets of a state folder; the first call makes them."""
    path = state / "secrets.json"
    if not path.exists():
        made = Secrets(postgres_password=secrets.token_urlsafe(24), token_secret=secrets.token_urlsafe(48))
        unfinished = path.with_suffix(".unfinished")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(made.model_dump_json())
        unfinished.rename(path)
    return Secrets.model_validate_json(path.read_text())
