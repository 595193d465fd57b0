"""Run a Docker engine for the tests alone, with the compose plugin.

The stand-ins bear the names of real images, so no other engine may see them: this one has a socket, a data folder and
a bridge of its own. Its data folder is a cache and stays; everything that runs is ended with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
STATE = CHECKOUT / ".state" / "containers"
RUN = Path("/run/whisperline-containers")
COMPOSE_VERSION = "2.40.3"
COMPOSE = CHECKOUT / ".tools" / f"docker-compose-{COMPOSE_VERSION}"
COMPOSE_MODULE = "github.com/docker/compose/v2"
BUILD_ARGUMENTS = ("--network=host", "--force-rm")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0


@dataclass(frozen=True)
class Engine:
    """The engine as its clients see it."""

    socket: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of clients, which use the classic builder because there is no other here."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}

    def docker(self, *arguments: str, check: bool = True, **options: Any) -> str:
        """Run a docker command and return what it printed."""
        command = ("docker", *arguments)
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, **options
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def inspect(self, name: str) -> dict[str, Any]:
        """Return all that the engine knows of a container or an image."""
        found: dict[str, Any] = json.loads(self.docker("inspect", name))[0]
        return found

    def build(self, tag: str, dockerfile: Path, context: Path, *arguments: str) -> None:
        """Build an image and keep the builder's output in a log beside the cache."""
        log = STATE / "logs" / f"build-{tag.rpartition('/')[2].partition(':')[0]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = ("docker", "build", *BUILD_ARGUMENTS, *arguments, "-t", tag, "-f", str(dockerfile), str(context))
        with log.open("w") as said:
            done = subprocess.run(command, env=self.environment, stdout=said, stderr=said, check=False)
        if done.returncode:
            raise AssertionError(f"{tag} cannot be built, see {log}:\n{log.read_text()[-3000:]}")

    def has(self, tag: str) -> bool:
        """Return whether there is an image of this name."""
        return bool(self.docker("images", "--quiet", tag).strip())


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Start the engine, and stop it with everything that it runs afterwards."""
    for program in ("dockerd", "debootstrap"):
        if shutil.which(program) is None:
            install("docker.io", "debootstrap", "iptables")
    engine = Engine(RUN / "docker.sock")
    for folder in (STATE, RUN):
        folder.mkdir(parents=True, exist_ok=True)
    with (STATE / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen(_daemon_command(engine.socket), stdout=log, stderr=log)
    try:
        _wait_for(engine, daemon)
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(STOP_LIMIT_S)


def install(*packages: str) -> None:
    """Install Debian packages, as root."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        subprocess.run(("apt-get", "-qq", *command), env=environment, stdout=subprocess.DEVNULL, check=True)


def compose_plugin() -> Path:
    """Return the compose plugin as a program of its own, built from its Go module the first time."""
    if not COMPOSE.exists():
        said = subprocess.run(
            ("go", "mod", "download", "-json", f"{COMPOSE_MODULE}@v{COMPOSE_VERSION}"),
            capture_output=True,
            check=True,
        )
        version = f"-s -w -X {COMPOSE_MODULE}/internal.Version=v{COMPOSE_VERSION}"
        build = ("go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", version, "-o", COMPOSE)
        folder = json.loads(said.stdout)["Dir"]
        subprocess.run((*build, "./cmd"), cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
    return COMPOSE


def _daemon_command(socket: Path) -> tuple[str, ...]:
    return (
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={STATE / 'docker'}",
        f"--exec-root={RUN / 'exec'}",
        f"--pidfile={RUN / 'docker.pid'}",
        "--storage-driver=overlay2",
        "--log-level=warn",
    )


def _wait_for(engine: Engine, daemon: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while subprocess.run(("docker", "info"), env=engine.environment, capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline_s:
            raise AssertionError(f"dockerd did not start: see {STATE / 'dockerd.log'}")
        time.sleep(0.2)
