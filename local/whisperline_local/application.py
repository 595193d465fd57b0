"""Whisperline's own processes: migrations, persistence, transcribers and gateways."""

import sys
from functools import partial

from whisperline_local import probes
from whisperline_local.assets import SILERO, voice_activity_model
from whisperline_local.ports import PortUse
from whisperline_local.postgres import database_url
from whisperline_local.service import Service, trace_env
from whisperline_local.settings import HOST, LocalSettings
from whisperline_local.state_folder import Secrets

# Let Python cache compiled modules: Poetry does not compile packages, and compiling takes seconds at every start.
PYTHON_ENV = {"PYTHONDONTWRITEBYTECODE": ""}
READY_PATH = "/health/ready"


def application_services(settings: LocalSettings, secrets: Secrets) -> tuple[Service, ...]:
    """Return Whisperline's own processes, with the configured number of replicas."""
    return (
        migrate_service(settings, secrets),
        persistence_service(settings, secrets),
        *(transcriber_service(settings, ordinal) for ordinal in range(settings.transcribers)),
        *(gateway_service(settings, secrets, ordinal) for ordinal in range(settings.gateways)),
    )


def replica(name: str, ordinal: int) -> str:
    """Return the name of a replica: `gateway`, `gateway-1`, `gateway-2`…"""
    return f"{name}-{ordinal}" if ordinal else name


def persistence_env(settings: LocalSettings, secrets: Secrets) -> dict[str, str]:
    """Return the environment of persistence and of its migrations."""
    return {
        **PYTHON_ENV,
        **trace_env(settings, "persistence", "persistence"),
        "WHISPERLINE_PERSISTENCE_DATABASE_URL": database_url(settings, secrets.postgres_password),
        "WHISPERLINE_PERSISTENCE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "WHISPERLINE_PERSISTENCE_METRICS_PORT": str(settings.ports.persistence_metrics),
    }


def migrate_service(settings: LocalSettings, secrets: Secrets) -> Service:
    """Return the one-off command that brings the schema up to date."""
    return Service(
        name="migrate",
        command=(sys.executable, "-m", "whisperline_persistence", "migrate"),
        env=persistence_env(settings, secrets),
        after=("postgres",),
        once=True,
    )


def persistence_service(settings: LocalSettings, secrets: Secrets) -> Service:
    """Return the consumer that stores transcripts."""
    port = settings.ports.persistence_metrics
    return Service(
        name="persistence",
        command=(sys.executable, "-m", "whisperline_persistence"),
        env=persistence_env(settings, secrets),
        after=("migrate", "kafka"),
        ports=(PortUse("persistence", port, "persistence_metrics_port"),),
        ready=lambda _pid: probes.http_ok(port, READY_PATH),
    )


def transcriber_service(settings: LocalSettings, ordinal: int) -> Service:
    """Return one transcriber."""
    name = replica("transcriber", ordinal)
    port = settings.ports.transcriber_metrics + ordinal
    return Service(
        name=name,
        command=(sys.executable, "-m", "whisperline_transcriber"),
        env={
            **PYTHON_ENV,
            **trace_env(settings, "transcriber", name),
            "WHISPERLINE_TRANSCRIBER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHISPERLINE_TRANSCRIBER_TRITON_URL": f"{HOST}:{settings.ports.triton_grpc}",
            # `prepare` puts the file here. The path must be known before the file is fetched.
            "WHISPERLINE_TRANSCRIBER_VAD_MODEL": str(settings.cache / SILERO.folder / SILERO.members[0]),
            "WHISPERLINE_TRANSCRIBER_METRICS_PORT": str(port),
        },
        after=("kafka", "triton"),
        ports=(PortUse(name, port, "transcriber_metrics_port"),),
        prepare=partial(voice_activity_model, settings),
        ready=lambda _pid: probes.http_ok(port, READY_PATH),
        stop_limit_s=20.0,
    )


def gateway_service(settings: LocalSettings, secrets: Secrets, ordinal: int) -> Service:
    """Return one gateway; its ordinal is the number of its reply partition."""
    name = replica("gateway", ordinal)
    port = settings.ports.gateway + ordinal
    return Service(
        name=name,
        command=(sys.executable, "-m", "whisperline_gateway"),
        env={
            **PYTHON_ENV,
            **trace_env(settings, "gateway", name),
            "WHISPERLINE_GATEWAY_HOST": settings.gateway_host,
            "WHISPERLINE_GATEWAY_PORT": str(port),
            "WHISPERLINE_GATEWAY_ORDINAL": str(ordinal),
            "WHISPERLINE_GATEWAY_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHISPERLINE_GATEWAY_DATABASE_URL": database_url(settings, secrets.postgres_password),
            "WHISPERLINE_GATEWAY_TOKEN_SECRET": secrets.token_secret,
        },
        after=("kafka", "migrate"),
        ports=(PortUse(name, port, "gateway_port", settings.gateway_host),),
        ready=lambda _pid: probes.http_ok(port, READY_PATH),
        stop_limit_s=20.0,
    )
