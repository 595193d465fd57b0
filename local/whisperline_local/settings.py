"""The embedded stack's settings, read once from `WHISPERLINE_LOCAL_*`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "WHISPERLINE_LOCAL_"
CHECKOUT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"  # every service listens here; only the gateway's address can be changed
MAX_REPLICAS = 8  # of gateways and of transcribers: the topics have eight partitions

Port = Annotated[int, Field(ge=1, le=65535)]
Replicas = Annotated[int, Field(ge=1, le=MAX_REPLICAS)]


@dataclass(frozen=True)
class Ports:
    """The ports of one stack. Replica *i* of the gateway or the transcriber has the port given here plus *i*."""

    gateway: int
    kafka: int
    kafka_controller: int
    postgres: int
    triton_http: int
    triton_grpc: int
    triton_metrics: int
    transcriber_metrics: int
    persistence_metrics: int


class LocalSettings(BaseSettings):
    """The services to run, their addresses, and their state folders. The README of `local/` describes each setting."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True)

    state_dir: Path = CHECKOUT / ".state"
    cache_dir: Path | None = None  # downloads and models, which state folders may share; None: in the state folder
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
    triton_nice: Annotated[int, Field(ge=0, le=19)] = 5  # by how much Triton gives way to the other processes
    model: str = "tiny.en"
    model_repository: Path | None = None  # a Triton model repository to serve as it is, instead of exporting `model`
    otel_endpoint: str | None = None  # OTLP collector (gRPC); None: as the OTEL_* variables say
    service_env: Mapping[str, Mapping[str, str]] = {}  # service name -> variables added to its environment

    @property
    def cache(self) -> Path:
        """The folder of downloads and models, absolute."""
        return (self.cache_dir or self.state_dir / "cache").absolute()

    @property
    def state(self) -> Path:
        """The state folder, absolute."""
        return self.state_dir.absolute()

    @property
    def logs(self) -> Path:
        """The folder of logs, one file per service."""
        return self.state / "logs"

    @property
    def ports(self) -> Ports:
        """The ports with the offset added."""
        offset = self.port_offset
        return Ports(
            gateway=self.gateway_port + offset,
            kafka=self.kafka_port + offset,
            kafka_controller=self.kafka_controller_port + offset,
            postgres=self.postgres_port + offset,
            triton_http=self.triton_http_port + offset,
            triton_grpc=self.triton_grpc_port + offset,
            triton_metrics=self.triton_metrics_port + offset,
            transcriber_metrics=self.transcriber_metrics_port + offset,
            persistence_metrics=self.persistence_metrics_port + offset,
        )

    @property
    def kafka_bootstrap(self) -> str:
        """The broker's address."""
        return f"{HOST}:{self.ports.kafka}"
