"""Settings, and the services made from them."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from whisperline_local.settings import LocalSettings
from whisperline_local.stack import all_services


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("STATE_DIR", "PORT_OFFSET", "CACHE_DIR"):
        monkeypatch.delenv(f"WHISPERLINE_LOCAL_{name}", raising=False)
    monkeypatch.setenv("WHISPERLINE_LOCAL_STATE_DIR", str(tmp_path))
    return monkeypatch


def test_settings_come_from_the_environment(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each field is a variable; extra environment for services is JSON."""
    clean_environment.setenv("WHISPERLINE_LOCAL_KAFKA_PORT", "19092")
    clean_environment.setenv("WHISPERLINE_LOCAL_SERVICE_ENV", '{"gateway": {"A": "1"}}')
    settings = LocalSettings()
    assert settings.state == tmp_path
    assert settings.ports.kafka == 19092
    gateway = next(service for service in all_services(settings) if service.name == "gateway")
    assert gateway.env["A"] == "1"


@pytest.mark.parametrize(("name", "value"), [("KAFKA_PORT", "70000"), ("GATEWAYS", "0"), ("GATEWAYS", "9")])
def test_a_wrong_setting_is_refused(clean_environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Ports and numbers of replicas outside their limits are refused."""
    clean_environment.setenv(f"WHISPERLINE_LOCAL_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        LocalSettings()


def test_the_offset_moves_every_port(tmp_path: Path) -> None:
    """Two stacks with different offsets and the most replicas share no port."""
    ports = [
        {use.port for service in all_services(settings) for use in service.ports}
        for offset in (0, 1000)
        for settings in [
            LocalSettings(state_dir=tmp_path, port_offset=offset, gateways=8, transcribers=8),
        ]
    ]
    assert {port + 1000 for port in ports[0]} == ports[1]
    assert not ports[0] & ports[1]


def test_replicas_have_names_and_ports_of_their_own(tmp_path: Path) -> None:
    """The first replica has the plain name; each gateway has its ordinal, and all share one secret."""
    services = {each.name: each for each in all_services(LocalSettings(state_dir=tmp_path, gateways=2, transcribers=2))}
    assert {"gateway", "gateway-1", "transcriber", "transcriber-1"} <= services.keys()
    first, second = services["gateway"].env, services["gateway-1"].env
    assert (first["WHISPERLINE_GATEWAY_ORDINAL"], second["WHISPERLINE_GATEWAY_ORDINAL"]) == ("0", "1")
    assert (first["WHISPERLINE_GATEWAY_PORT"], second["WHISPERLINE_GATEWAY_PORT"]) == ("8080", "8081")
    assert first["WHISPERLINE_GATEWAY_TOKEN_SECRET"] == second["WHISPERLINE_GATEWAY_TOKEN_SECRET"]


def test_each_process_is_told_apart_in_traces(clean_environment: pytest.MonkeyPatch) -> None:
    """Each kind of process has its own service name and each replica its own id; our processes get the collector."""
    clean_environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=laptop")
    settings = LocalSettings(gateways=2, otel_endpoint="http://127.0.0.1:4317")
    env = {each.name: each.env for each in all_services(settings)}
    assert {name: env[name]["OTEL_SERVICE_NAME"] for name in env.keys() - {"kafka", "postgres"}} == {
        "gateway": "whisperline-gateway",
        "gateway-1": "whisperline-gateway",
        "transcriber": "whisperline-transcriber",
        "persistence": "whisperline-persistence",
        "migrate": "whisperline-persistence",
        "triton": "whisperline-triton",
    }
    attributes = "deployment.environment.name=laptop,service.instance.id=gateway-1"
    assert env["gateway-1"]["OTEL_RESOURCE_ATTRIBUTES"] == attributes
    assert env["triton"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4317"


def test_the_collector_of_the_environment_is_left_alone(clean_environment: pytest.MonkeyPatch) -> None:
    """Without a setting, no service overrides the endpoint that it inherits."""
    assert all("OTEL_EXPORTER_OTLP_ENDPOINT" not in each.env for each in all_services(LocalSettings()))


def test_the_setting_that_moves_a_port_exists(tmp_path: Path) -> None:
    """The error about a taken port names a setting that can be set, and that moves this very port."""
    moved = LocalSettings(state_dir=tmp_path)
    for use in [use for service in all_services(moved) for use in service.ports]:
        assert LocalSettings.model_fields[use.setting].default == use.port


def test_secrets_are_kept_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    """The secrets of a state folder stay the same, and only their owner can read them."""
    settings = LocalSettings(state_dir=tmp_path)
    assert [each.env for each in all_services(settings)] == [each.env for each in all_services(settings)]
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0
