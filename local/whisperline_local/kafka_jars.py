"""Fetch Apache Kafka's jars from Maven repositories, through jgo, and check each against `kafka.lock`.

`kafka.lock` has a line `group:artifact:version sha256` for each jar, in the order of the class path. To make it
for another version: `python -m whisperline_local.kafka_jars 4.3.1 > local/whisperline_local/kafka.lock`.
"""

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

from whisperline_local.assets import sha256_of
from whisperline_local.errors import StepFailed

LOGGING_BACKEND = (
    "org.slf4j:slf4j-simple:1.7.36"  # Kafka's dependencies have none; this one starts fastest and writes to stderr
)
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
    """Return the paths of all jars; download those that the local Maven repository lacks.

    Raises `StepFailed` if a jar cannot be fetched or is not the one that the lock names.
    """
    # Honour the mirrors in jgo's own configuration.
    remotes = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    context = MavenContext(repo_cache=repository, remote_repos=remotes, timeout=TIMEOUT_S)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(lambda jar: fetch_jar(context, jar), locked_jars()))


def fetch_jar(context: MavenContext, jar: Jar) -> Path:
    """Return the path of one jar; see `fetch_jars`."""
    group, name, version = jar.coordinate.split(":")
    artifact = context.project(group, name).at_version(version).artifact()
    problem = ""
    for _ in range(TRIES):
        try:
            path = Path(artifact.resolve())
        except (RuntimeError, OSError, AssertionError) as error:  # requests' errors are OSErrors
            problem = str(error)
            continue
        found = sha256_of(path)
        if found == jar.sha256:
            return path
        problem = f"the sha256 of {path.name} is {found}, not {jar.sha256}"
        path.unlink()  # a download that was interrupted, or not the published jar: the next try fetches it again
    raise StepFailed("fetching Apache Kafka", problem, hint="Is the Maven repository reachable?")


def lock(version: str) -> Sequence[Jar]:
    """Return the jars of a version of Kafka, with the digests of the files that the repositories serve now."""
    artifacts = jgo.resolve(f"org.apache.kafka:kafka_2.13:{version}") + jgo.resolve(LOGGING_BACKEND)[:1]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        paths = pool.map(lambda artifact: Path(artifact.resolve()), artifacts)
    names = [f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}" for artifact in artifacts]
    return [Jar(name, sha256_of(path)) for name, path in zip(names, paths, strict=True)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{jar.coordinate} {jar.sha256}\n" for jar in lock(sys.argv[1]))
