"""Whisperline's own processes: migrations, persistence, transcribers and gateways."""

import sys
from functools import partial

from whisperline_local import probes
from whisperline_local.assets import SILERO, fetch
from whisperline_local.ports import PortUse
from whisperline_local.postgres import database_url
from whisperline_local.process import Tell
from whisperline_local.secrets import Secrets
from whisperline_local.service import Service
from whisperline_local.settings import HOST, LocalSettings

# Poetry leaves it to the first run to compile packages, which this variable would forbid: seconds at every start.
PYTHON_ENV = {"PYTHONDONTWRITEBYTECODE": ""}


def application_services(settings: LocalSettings, secrets: Secrets) -> tuple[Service, ...]:
    """Every process of ours, in as many replicas as the settings say."""
    return (
        migrate_service(settings, secrets),
        persistence_service(settings, secrets),
        *(transcriber_service(settings, ordinal) for ordinal in range(settings.transcribers)),
        *(gateway_service(settings, secrets, ordinal) for ordinal in range(settings.gateways)),
    )


def replica(name: str, ordinal: int) -> str:
    """Return the name of a replica: `gateway`, `gateway-1`, `gateway-2`…"""
    return f"{name}-{ordinal}" if ordinal else name


def migrate_service(settings: LocalSettings, secrets: Secrets) -> Service:
    """The step that brings the schema up to date; it ends."""
    return Service(
        name="migrate",
        command=(sys.executable, "-m", "whisperline_persistence", "migrate"),
        env=_persistence_env(settings, secrets),
        after=("postgres",),
        once=True,
    )


def persistence_service(settings: LocalSettings, secrets: Secrets) -> Service:
    """The consumer that stores transcripts."""
    port = settings.port("persistence_metrics_port")
    return Service(
        name="persistence",
        command=(sys.executable, "-m", "whisperline_persistence"),
        env=_persistence_env(settings, secrets),
        after=("migrate", "kafka"),
        ports=(PortUse("persistence", port, "persistence_metrics_port"),),
        ready=lambda _pid: probes.http_ok(port, "/health/ready"),
    )


def transcriber_service(settings: LocalSettings, ordinal: int) -> Service:
    """One transcriber."""
    name = replica("transcriber", ordinal)
    port = settings.port("transcriber_metrics_port", ordinal)
    return Service(
        name=name,
        command=(sys.executable, "-m", "whisperline_transcriber"),
        env={
            **PYTHON_ENV,
            "WHISPERLINE_TRANSCRIBER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHISPERLINE_TRANSCRIBER_TRITON_URL": f"{HOST}:{settings.port('triton_grpc_port')}",
            "WHISPERLINE_TRANSCRIBER_VAD_MODEL": str(settings.cache / SILERO.folder / SILERO.members[0]),
            "WHISPERLINE_TRANSCRIBER_METRICS_PORT": str(port),
        },
        after=("kafka", "triton"),
        ports=(PortUse(name, port, "transcriber_metrics_port"),),
        prepare=partial(_fetch_voice_activity_model, settings),
        ready=lambda _pid: probes.http_ok(port, "/health/ready"),
        stop_limit_s=20.0,
    )


def gateway_service(settings: LocalSettings, secrets: Secrets, ordinal: int) -> Service:
    """One gateway; its ordinal names its reply partition."""
    name = replica("gateway", ordinal)
    port = settings.port("gateway_port", ordinal)
    return Service(
        name=name,
        command=(sys.executable, "-m", "whisperline_gateway"),
        env={
            **PYTHON_ENV,
            "WHISPERLINE_GATEWAY_HOST": settings.gateway_host,
            "WHISPERLINE_GATEWAY_PORT": str(port),
            "WHISPERLINE_GATEWAY_ORDINAL": str(ordinal),
            "WHISPERLINE_GATEWAY_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHISPERLINE_GATEWAY_DATABASE_URL": database_url(settings, secrets.postgres_password),
            "WHISPERLINE_GATEWAY_TOKEN_SECRET": secrets.token_secret,
        },
        after=("kafka", "migrate"),
        ports=(PortUse(name, port, "gateway_port", settings.gateway_host),),
        ready=lambda _pid: probes.http_ok(port, "/health/ready"),
        stop_limit_s=20.0,
    )


def _persistence_env(settings: LocalSettings, secrets: Secrets) -> dict[str, str]:
    return {
        **PYTHON_ENV,
        "WHISPERLINE_PERSISTENCE_DATABASE_URL": database_url(settings, secrets.postgres_password),
        "WHISPERLINE_PERSISTENCE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "WHISPERLINE_PERSISTENCE_METRICS_PORT": str(settings.port("persistence_metrics_port")),
    }


async def _fetch_voice_activity_model(settings: LocalSettings, tell: Tell) -> None:
    await fetch(SILERO, settings, tell)
