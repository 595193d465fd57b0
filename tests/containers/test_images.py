"""Test what the images contain and allow: a numeric user, nothing to write to, no shell, no package manager."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.conftest import IMAGES, USER_ID, VERSION
from containers.engine import CHECKOUT, STATE, Engine

pytestmark = pytest.mark.containers

SHELLS = {"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"}
MANAGERS = {"apk", "apt", "apt-get", "conda", "dnf", "dpkg", "npm", "pip", "pip3", "poetry", "rpm", "uv", "yum"}
COMPILERS = {"as", "c++", "cc", "clang", "cpp", "g++", "gcc", "go", "ld", "make", "nvcc", "rustc"}
ALLOWED_SHELLS = {"triton": {"bash", "dash", "sh"}}  # Triton's Python backend starts a model's process with them
WRITABLE = {"triton": {"/cache", "/models", "/tmp"}}  # noqa: S108
LOOK = """
import importlib.util, json, os
programs, writable = set(), set()
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("dev", "proc", "sys")]
    if os.access(folder, os.W_OK):
        writable.add(folder)
    for name in files:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            programs.add(name)
        if os.path.exists(path) and os.access(path, os.W_OK) and not path.startswith("/etc/"):
            writable.add(path)
modules = [name for name in ("pip", "setuptools", "ensurepip") if importlib.util.find_spec(name)]
print(json.dumps({"ids": [os.getuid(), os.getgid()], "programs": sorted(programs),
                  "writable": sorted(writable), "modules": modules,
                  "packages": os.listdir("/var/lib/dpkg/status.d")}))
"""

Contents = dict[str, dict[str, list[Any]]]


@pytest.fixture(scope="module")
def inside(engine: Engine, images: dict[str, str]) -> Contents:
    """Return what each image's own Python finds in it when its root file system is writable."""
    run = ("run", "--rm", "--network=none", "--entrypoint=python")
    return {name: json.loads(engine.docker(*run, tag, "-c", LOOK)) for name, tag in images.items()}


@pytest.mark.parametrize("name", IMAGES)
def test_the_user_is_a_number_and_not_root(name: str, engine: Engine, images: dict[str, str], inside: Contents) -> None:
    """The user is a number, so Kubernetes can see that it is not root."""
    assert engine.inspect(images[name])["Config"]["User"] == f"{USER_ID}:{USER_ID}"
    assert inside[name]["ids"] == [USER_ID, USER_ID]


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_of_the_image_can_be_written(name: str, inside: Contents) -> None:
    """Even with a writable root file system the user may write only to /tmp and the folders made for it."""
    assert set(inside[name]["writable"]) == WRITABLE.get(name, {"/tmp"})  # noqa: S108


@pytest.mark.parametrize("name", IMAGES)
def test_there_is_no_shell_no_package_manager_no_compiler(name: str, inside: Contents) -> None:
    """An image has no shell, package manager or compiler; only Triton has bash, which starts a model's process."""
    programs = set(inside[name]["programs"])
    assert programs & SHELLS == ALLOWED_SHELLS.get(name, set())
    assert not programs & (MANAGERS | COMPILERS)
    assert not inside[name]["modules"]


@pytest.mark.parametrize("name", IMAGES)
def test_scanners_see_the_packages(name: str, inside: Contents) -> None:
    """The Debian packages that libraries came from are recorded as distroless images record them."""
    assert "libc6" in inside[name]["packages"]


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_says_what_it_is(name: str, engine: Engine, images: dict[str, str]) -> None:
    """An image has labels for source, revision, version and licence, a health check, and needs no shell to start."""
    config = engine.inspect(images[name])["Config"]
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items()}
    assert labels.keys() >= {"title", "description", "source", "licenses", "version", "revision"}
    assert labels["version"] == VERSION
    assert labels["revision"] != "unknown"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["Entrypoint"][0] in ("python", "tritonserver")


def test_the_sizes(engine: Engine, images: dict[str, str], figure: Callable[[str], None]) -> None:
    """The sizes are printed as the table of docs/containers.md, and none exceeds its limit."""
    limits_mb = {"gateway": 140, "persistence": 140, "transcriber": 300, "triton": 700}
    sizes_mb = {name: engine.inspect(tag)["Size"] / 1e6 for name, tag in images.items()}
    lines = [f"| {name} | {size_mb:.0f} MB |" for name, size_mb in sizes_mb.items()]
    figure("\n".join(["images, uncompressed:", *lines]))
    (STATE / "sizes.md").write_text("\n".join(lines) + "\n")
    assert all(sizes_mb[name] <= limit_mb for name, limit_mb in limits_mb.items()), sizes_mb


def test_a_model_travels_as_an_image(engine: Engine, images: dict[str, str], tmp_path: Path) -> None:
    """The image of a model holds one version, which `assemble` copies for a server from a read-only mount."""
    tag = "ghcr.io/whisperline/model-tiny.en:test"
    target = ("--target=model", "--build-arg=DEVICE=cpu")
    engine.build(tag, CHECKOUT / IMAGES["triton"], CHECKOUT, *target)
    created = engine.docker("create", tag, "nothing-in-it-runs").strip()
    engine.docker("cp", f"{created}:/version", str(tmp_path / "version"))
    engine.docker("rm", created)
    mounts = (f"--volume={tmp_path / 'version'}:/versions/3:ro", "--tmpfs=/models:uid=65532,mode=0755")
    restricted = ("run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", *mounts)
    assemble = ("assemble", "--repository", "/models", "--version", "3=/versions/3", "--default", "3")
    said = engine.docker(*restricted, "--entrypoint=whisperline-models", images["triton"], *assemble)
    assert "version 3: tiny.en, int8" in said
    assert "version 3 serves" in said
