"""The settings of the command line, from environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """The defaults of command line options. Each command reads them when it is called."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_MODEL_", frozen=True)

    cache: Path = Field(Path.home() / ".cache" / "whisperline", description="where fetched weights are kept")
    repository: Path = Field(Path("models"), description="the Triton model repository that versions are published to")
    speech_dir: Path = Field(
        Path("speech"),
        validation_alias=AliasChoices("WHISPERLINE_SPEECH_DIR"),
        description="recorded speech with a manifest.jsonl",
    )
