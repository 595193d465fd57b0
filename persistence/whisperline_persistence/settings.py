"""The settings of the persistence process, read once at start."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from whisperline_runtime.settings import ConsumerSettings

from whisperline_persistence.database_url import DatabaseUrl


class Settings(ConsumerSettings):
    """The persistence settings: environment variables with the prefix WHISPERLINE_PERSISTENCE_."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_PERSISTENCE_")

    database_url: DatabaseUrl = Field(description="PostgreSQL that keeps the transcripts")
    group: str = Field(default="persistence", description="consumer group")
    session_timeout_ms: int = Field(
        default=10_000, ge=6_000, le=300_000, description="the group gives a silent member's partitions away"
    )
    batch_records: int = Field(default=500, ge=1, le=10_000, description="most records in a batch")
    batch_ms: int = Field(default=200, ge=0, le=10_000, description="longest wait of a record for its batch to fill")
    retry_max_ms: int = Field(default=5_000, ge=100, description="longest delay between attempts at the database")
    shutdown_ms: int = Field(default=6_000, ge=0, description="to finish the batch after SIGTERM")
    migrate_wait_ms: int = Field(
        default=60_000, ge=0, description="longest wait of `migrate` for the database and for other migrations"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address of probes and metrics")
    metrics_port: int = Field(default=8130, ge=0, le=65_535, description="0 takes any free port")
