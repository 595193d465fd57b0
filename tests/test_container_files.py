"""The container files agree with the rest of the repository; no Docker engine is needed to tell."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from alerting import promtool
from prometheus_client import REGISTRY
from whisperline_gateway import metrics as gateway
from whisperline_local.assets import SILERO
from whisperline_persistence import metrics as persistence
from whisperline_transcriber import metrics as transcriber

CHECKOUT = Path(__file__).parents[1]
DOCKERFILES = sorted(CHECKOUT.glob("*/Dockerfile"))
COMPOSE = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
TOOLS = Path(sys.prefix) / "bin"
SUFFIXES = re.compile(r"_(bucket|sum|count|total)$")


def test_every_deployable_has_a_dockerfile() -> None:
    """There is one for the gateway, the transcriber, persistence and Triton."""
    assert [path.parent.name for path in DOCKERFILES] == ["consumers", "gateway", "model_repository", "persistence"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_bases_are_pinned_by_full_version(path: Path) -> None:
    """Nothing is built from a tag that moves, and what is shipped begins from scratch."""
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
    """compose.yaml names no tag that moves."""
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images if not image.startswith("ghcr.io/whisperline/"))


def test_compose_holds_no_secret() -> None:
    """Nothing that is named as a secret has a value; files and variables may name where one is."""
    for service in COMPOSE["services"].values():
        for name in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|SECRET|DATABASE_URL|TOKEN)$", name), name


def test_the_voice_activity_model_is_the_one_of_the_tests() -> None:
    """The transcriber's image carries the very file that every test ran with."""
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


def test_the_dashboard_shows_metrics_that_exist() -> None:
    """Every metric of ours on the dashboard is one that a process has."""
    assert gateway
    assert persistence
    assert transcriber
    known = {metric.name for metric in REGISTRY.collect()}
    dashboard = json.loads((CHECKOUT / "compose/grafana/whisperline.json").read_text())
    shown = set(re.findall(r"whisperline_\w+", " ".join(t["expr"] for p in dashboard["panels"] for t in p["targets"])))
    assert shown
    assert {name for name in shown if not {name, SUFFIXES.sub("", name)} & known} == set()
