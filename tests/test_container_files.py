"""The container files agree with the rest of the repository; these checks need no Docker engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from alerting import promtool
from whisperline_local.assets import SILERO

CHECKOUT = Path(__file__).parents[1]
DOCKERFILES = sorted(CHECKOUT.glob("*/Dockerfile"))
COMPOSE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
TOOLS = Path(sys.prefix) / "bin"


def test_every_deployable_has_a_dockerfile() -> None:
    """There is one for the gateway, the transcriber, persistence and Triton."""
    assert [path.parent.name for path in DOCKERFILES] == ["consumers", "gateway", "model_repository", "persistence"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_bases_are_pinned_by_full_version(path: Path) -> None:
    """No image is built from a moving tag, and shipped images begin from scratch."""
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("FROM ")]
    stages = {line[3] for line in lines if len(line) > 3}
    bases = {line[1] for line in lines} - stages - {"scratch"}
    assert all(re.search(r":\d+\.\d+", base) for base in bases)
    assert lines[-1][1] == "scratch"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_are_clean(path: Path) -> None:
    """hadolint finds nothing in them."""
    found = subprocess.run((TOOLS / "hadolint", path), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_compose_follows_its_schema() -> None:
    """The file has no key or value that the compose specification does not know."""
    command = (TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", CHECKOUT / "compose.yaml")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_prometheus_reads_its_configuration() -> None:
    """Promtool accepts the configuration of the profile observability."""
    found = promtool("check", "config", "--syntax-only", CHECKOUT / "compose/prometheus.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_images_of_others_are_pinned_by_full_version() -> None:
    """compose.yaml names no moving tag."""
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images if not image.startswith("ghcr.io/whisperline/"))


def test_compose_holds_no_secret() -> None:
    """No secret has a value in compose.yaml; files and variables may only point to one."""
    for service in COMPOSE["services"].values():
        for name in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|SECRET|DATABASE_URL|TOKEN)$", name), name


def test_the_voice_activity_model_is_the_one_of_the_tests() -> None:
    """The transcriber's image contains the same model file that the tests use."""
    assert (
        f"{SILERO.name}=={SILERO.version} --hash=sha256:{SILERO.sha256}"
        in (CHECKOUT / "consumers/Dockerfile").read_text()
    )


def test_the_gpu_packages_are_those_that_are_measured() -> None:
    """The group `gpu` of the lock and `make bench-serving-gpu` name the same versions."""
    project = tomllib.loads((CHECKOUT / "model_repository/pyproject.toml").read_text())
    group = project["tool"]["poetry"]["group"]["gpu"]["dependencies"]
    measured = (CHECKOUT / "bench/gpu-requirements.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in group.items()} == {
        line for line in measured if not line.startswith("#")
    }


def copied(path: Path) -> set[str]:
    """Return the folders that a Dockerfile copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
    return {source.partition("/")[0] for line in lines for source in line.split()[:-1]}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_sent_to_the_builder(path: Path) -> None:
    """The build context holds each folder that is copied, and a change in one of them builds the images anew."""
    sent = {line[1:].partition("/")[0] for line in (CHECKOUT / ".dockerignore").read_text().split() if line[0] == "!"}
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/images.yml").read_text())
    assert copied(path) <= sent
    for event in ("pull_request", "push"):
        watched = {pattern.removesuffix("/**") for pattern in workflow[True][event]["paths"]}
        assert copied(path) <= watched


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_has_the_packages_that_its_process_needs(path: Path) -> None:
    """Each package of ours that the project depends on is copied, built and installed; Poetry leaves that to us."""
    project = tomllib.loads((path.parent / "pyproject.toml").read_text())
    needed = {name.removeprefix("whisperline-") for name in ours(project)}
    assert needed <= copied(path)
    built = set(re.findall(r" \./(\w+)", path.read_text()))
    assert needed <= built


def ours(project: dict[str, Any]) -> set[str]:
    """Return our packages that a project depends on, directly or indirectly."""
    found = {name for name in project["project"]["dependencies"] if name.startswith("whisperline-")}
    for name in set(found):
        further = CHECKOUT / name.removeprefix("whisperline-") / "pyproject.toml"
        found |= ours(tomllib.loads(further.read_text()))
    return found


OBSERVING = {
    name: service for name, service in COMPOSE["services"].items() if "observability" in service.get("profiles", ())
}


def test_nothing_is_traced_unless_an_endpoint_is_given() -> None:
    """Every process of ours has its own service name, and takes the endpoint from one variable, empty by default."""
    names = {}
    for name in ("gateway", "transcriber", "persistence", "triton-cpu", "triton-gpu"):
        environment = COMPOSE["services"][name]["environment"]
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "${WHISPERLINE_OTLP_ENDPOINT:-}"
        assert environment["OTEL_RESOURCE_ATTRIBUTES"].startswith("service.namespace=whisperline,")
        names[name] = environment["OTEL_SERVICE_NAME"]
    assert len(set(names.values())) == len(names) - 1  # Triton is one service, on either device
    assert "WHISPERLINE_OTLP_ENDPOINT=\n" in (CHECKOUT / ".env").read_text()


def test_the_collector_reads_the_logs_of_every_container() -> None:
    """Docker writes them as JSON with the labels that the collector chooses by, and lets none grow for ever."""
    for name, service in COMPOSE["services"].items():
        assert service["logging"]["driver"] == "json-file", name
        options = service["logging"]["options"]
        assert options["labels"].split(",") == ["com.docker.compose.project", "com.docker.compose.service"]
        assert {"max-size", "max-file"} <= set(options)
    (mount,) = (
        volume for volume in OBSERVING["collector"]["volumes"] if volume.endswith(":/var/lib/docker/containers:ro")
    )
    assert "/var/lib/docker/containers}" in mount


def test_addresses_in_the_profile_observability_are_those_of_its_services() -> None:
    """The collector sends to Tempo and Loki, and Grafana asks them and Prometheus, at ports that they listen on."""
    tempo = yaml.safe_load((CHECKOUT / "compose/tempo.yaml").read_text())
    loki = yaml.safe_load((CHECKOUT / "compose/loki.yaml").read_text())
    sources = yaml.safe_load((CHECKOUT / "compose/grafana/datasources.yaml").read_text())["datasources"]
    collector = (CHECKOUT / "compose/otelcol.yaml").read_text()
    assert {source["url"] for source in sources} == {
        f"http://tempo:{tempo['server']['http_listen_port']}",
        f"http://loki:{loki['server']['http_listen_port']}",
        "http://prometheus:9090",
    }
    assert f"http://loki:{loki['server']['http_listen_port']}/otlp" in collector
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert "tempo:4317" in collector
    assert {"collector", "tempo", "loki", "prometheus", "grafana"} == set(OBSERVING)


def test_stores_keep_their_data_on_their_volumes() -> None:
    """Everything that Tempo and Loki write is below the one folder of each that is not read-only."""
    for name, folder in (("tempo", "/var/tempo"), ("loki", "/loki")):
        assert OBSERVING[name]["volumes"] == [f"{name}:{folder}"]
        paths = re.findall(r": (/\S+)$", (CHECKOUT / f"compose/{name}.yaml").read_text(), re.MULTILINE)
        assert paths
        assert all(f"{path}/".startswith(f"{folder}/") for path in paths)


def test_prometheus_keeps_exemplars() -> None:
    """Without the feature the points that lead to traces are thrown away."""
    assert "--enable-feature=exemplar-storage" in OBSERVING["prometheus"]["command"]
