"""Apache Kafka's jars: from Maven coordinates, through jgo, each checked against `kafka.lock`.

`kafka.lock` has a line `group:artifact:version sha256` for each jar, in the order of the class path. To write it
anew for another version: `python -m whisperline_local.kafka_jars 4.3.1 > local/whisperline_local/kafka.lock`.
"""

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jgo
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

from whisperline_local.errors import StepFailed

LOGGING_BACKEND = "org.slf4j:slf4j-simple:1.7.36"  # Kafka names none; this one starts fastest and writes to stderr
PARALLEL_DOWNLOADS = 8
TRIES = 3
TIMEOUT_S = 60


@dataclass(frozen=True)
class Jar:
    """One jar of the class path."""

    coordinate: str
    sha256: str


def locked_jars() -> tuple[Jar, ...]:
    """Return the jars of `kafka.lock`."""
    lines = files(__package__).joinpath("kafka.lock").read_text().splitlines()
    return tuple(Jar(*line.split()) for line in lines)


def fetch_jars(repository: Path) -> list[Path]:
    """Return the paths of all jars, downloading those that the local Maven repository folder lacks.

    Raises `StepFailed` when one cannot be had or is not the jar that the lock names.
    """
    context = _context(repository)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(lambda jar: _fetch(context, jar), locked_jars()))


def _fetch(context: MavenContext, jar: Jar) -> Path:
    group, name, version = jar.coordinate.split(":")
    artifact = context.project(group, name).at_version(version).artifact()
    problem = ""
    for _ in range(TRIES):
        try:
            path = Path(artifact.resolve())
        except (RuntimeError, OSError, AssertionError) as error:  # requests' errors are OSErrors
            problem = str(error)
            continue
        if _sha256(path) == jar.sha256:
            return path
        problem = f"the sha256 of {path.name} is {_sha256(path)}, not {jar.sha256}"
        path.unlink()  # cut short by an earlier interruption, or not what was published: fetched anew
    raise StepFailed("fetching Apache Kafka", problem, hint="Is the Maven repository reachable?")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _context(repository: Path) -> MavenContext:
    """A context that downloads into `repository`, from the repositories of jgo's configuration and Maven Central."""
    remotes = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    return MavenContext(repo_cache=repository, remote_repos=remotes, timeout=TIMEOUT_S)


def _lock(version: str) -> Sequence[Jar]:
    artifacts = jgo.resolve(f"org.apache.kafka:kafka_2.13:{version}") + jgo.resolve(LOGGING_BACKEND)[:1]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        paths = pool.map(lambda artifact: Path(artifact.resolve()), artifacts)
    names = [f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}" for artifact in artifacts]
    return [Jar(name, _sha256(path)) for name, path in zip(names, paths, strict=True)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{jar.coordinate} {jar.sha256}\n" for jar in _lock(sys.argv[1]))
