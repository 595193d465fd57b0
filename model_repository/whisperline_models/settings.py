"""The settings of the command line, read from the environment once."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """Defaults of the options; the parity check's clips and interpreter are shared with the tests."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_MODEL_", frozen=True)

    cache: Path = Path.home() / ".cache" / "whisperline"  # what was fetched
    repository: Path = Path("models")  # the Triton model repository that versions are published to
    speech_dir: Path = Field(Path("speech"), validation_alias=AliasChoices("WHISPERLINE_SPEECH_DIR"))
    oracle_python: Path = Field(
        Path(".tools/oracle/bin/python"), validation_alias=AliasChoices("WHISPERLINE_ORACLE_PYTHON")
    )
