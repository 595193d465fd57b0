"""The settings of the persistence process, read once at its start."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from whisperline_contracts.settings import DeployableSettings

from whisperline_persistence.database_url import DatabaseUrl


class Settings(DeployableSettings):
    """Each setting is an environment variable: its name in capitals after `WHISPERLINE_PERSISTENCE_`."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_PERSISTENCE_")

    database_url: DatabaseUrl
    group: str = "persistence"
    session_timeout_ms: int = Field(default=10_000, ge=6_000, le=300_000)  # until the group gives up on a silent member
    batch_records: int = Field(default=500, ge=1, le=10_000)
    batch_ms: int = Field(default=200, ge=0, le=10_000)  # the longest that a record waits for its batch to fill
    dead_letters_in_a_row: int = Field(default=20, ge=1)  # as many stop the process
    retry_max_ms: int = Field(default=5_000, ge=100)  # between two attempts at a database that is away
    shutdown_ms: int = Field(default=6_000, ge=0)  # to finish the batch after SIGTERM
    migrate_wait_ms: int = Field(default=60_000, ge=0)  # `migrate` waits for the database and for other migrations
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=8130, ge=0, le=65_535)  # 0: any free port
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
