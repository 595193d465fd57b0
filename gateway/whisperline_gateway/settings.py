"""The gateway's settings: environment variables with the prefix WHISPERLINE_GATEWAY_, read once at start."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from whisperline_persistence import DatabaseUrl
from whisperline_runtime.settings import ConsumerSettings


class Settings(ConsumerSettings):
    """Every setting of the gateway, with its default and unit. The README's table says the same."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_GATEWAY_")

    token_secret: SecretStr = Field(min_length=16, description="signs resume tokens; the same for every gateway")
    database_url: DatabaseUrl = Field(description="PostgreSQL that holds the finals which a resumed session missed")
    host: str = Field(default="127.0.0.1", description="address to listen on; there are no accounts yet")
    port: int = Field(default=8080, ge=0, le=65535, description="0 takes any free port")
    ordinal: int = Field(default=0, ge=0, description="partition of `transcriptions` that this replica reads")
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="web origins besides its own whose pages may connect; JSON list, * for all"
    )
    max_connections: int = Field(default=2_000, ge=1, description="sockets; further clients are asked to try again")
    max_frame_bytes: int = Field(default=1024 * 1024, ge=1024, description="largest WebSocket message")
    in_flight_bytes: int = Field(
        default=512 * 1024, ge=1024, description="audio of one connection that Kafka has not acknowledged"
    )
    flush_ms: int = Field(
        default=40, ge=0, le=1_000, description="least time between two records of audio; it is gathered meanwhile"
    )
    ack_interval_ms: int = Field(default=200, ge=0, le=10_000, description="shortest time between two Acks")
    heartbeat_s: float = Field(default=30, gt=0, le=60, description="how often a quiet session shows that it lives")
    idle_timeout_s: float = Field(default=12, gt=0, description="how long a client may send nothing (NET-0001)")
    durable_timeout_s: float = Field(default=60, gt=0, description="longest wait for Kafka (NOT_DURABLE)")
    resume_timeout_s: float = Field(default=3, gt=0, description="longest wait for the transcriber at a resumption")
    resume_grace_s: float = Field(default=30, ge=0, description="how long a session waits for its client")
    finals_timeout_s: float = Field(
        default=20, gt=0, description="longest wait without news of a session that the client has closed"
    )
    file_finals_timeout_s: float = Field(default=300, gt=0, description="the same for priority=file")
    write_timeout_s: float = Field(default=10, gt=0, description="longest time for a client to read a message")
    drain_timeout_s: float = Field(default=8, gt=0, description="at SIGTERM, time for sessions that cannot be resumed")
    token_lifetime_s: float = Field(default=86_400, gt=0, description="how long a resume token is valid")

    @property
    def token_key(self) -> bytes:
        """Return the key that signs resume tokens."""
        return self.token_secret.get_secret_value().encode()

    def finals_limit_s(self, priority: str) -> float:
        """Return how long (s) to wait without news for a session of `priority` to end."""
        return self.file_finals_timeout_s if priority == "file" else self.finals_timeout_s
