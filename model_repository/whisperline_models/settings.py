"""The settings of the command line, read from the environment once."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """Defaults of the options: `cache` holds what was fetched, `oracle_python` runs the parity check's other side."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_MODEL_", frozen=True)

    cache: Path = Path.home() / ".cache" / "whisperline"
    repository: Path = Path("models")
