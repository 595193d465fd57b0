"""The embedded stack's settings, read once from `WHISPERLINE_LOCAL_*`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "WHISPERLINE_LOCAL_"
CHECKOUT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"  # nothing of the stack but the gateway can be told to listen elsewhere
MAX_REPLICAS = 8  # of gateways and of transcribers: the topics have eight partitions

Port = Annotated[int, Field(ge=1, le=65535)]
Replicas = Annotated[int, Field(ge=1, le=MAX_REPLICAS)]


class LocalSettings(BaseSettings):
    """What runs, where it listens, and where its state lies. The README of `local/` has the table."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True)

    state_dir: Path = CHECKOUT / ".state"
    cache_dir: Path | None = None  # downloads and models, to be shared between state folders; None: in the state folder
    port_offset: Annotated[int, Field(ge=0, le=50000)] = 0  # added to every port below
    gateway_host: str = HOST
    gateway_port: Port = 8080
    kafka_port: Port = 9192
    kafka_controller_port: Port = 9193
    postgres_port: Port = 5532
    triton_http_port: Port = 8100
    triton_grpc_port: Port = 8101
    triton_metrics_port: Port = 8102
    transcriber_metrics_port: Port = 8120
    persistence_metrics_port: Port = 8130
    gateways: Replicas = 1
    transcribers: Replicas = 1
    java: str = "java"
    kafka_heap_mb: Annotated[int, Field(ge=128)] = 384
    model: str = "tiny.en"
    model_repository: Path | None = None  # a Triton model repository to serve as it is, instead of exporting `model`
    service_env: Mapping[str, Mapping[str, str]] = {}  # service name -> variables added to its environment

    @property
    def cache(self) -> Path:
        """The folder of downloads and models."""
        return (self.cache_dir or self.state_dir / "cache").absolute()

    @property
    def state(self) -> Path:
        """The state folder, absolute."""
        return self.state_dir.absolute()

    @property
    def logs(self) -> Path:
        """The folder of logs, one file per service."""
        return self.state / "logs"

    def port(self, name: str, ordinal: int = 0) -> int:
        """Return the port that the setting `name` gives, shifted by the offset and by a replica's ordinal."""
        return int(getattr(self, name)) + self.port_offset + ordinal

    @property
    def kafka_bootstrap(self) -> str:
        """The broker's address."""
        return f"{HOST}:{self.port('kafka_port')}"
