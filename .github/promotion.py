# ruff: noqa: T201 - its output is the log of a workflow
"""Run the steps of deploy.yml: collect digests, verify their signatures, change the environment's file, push.

python .github/promotion.py collect|verify|change|push|serving

Reads ENVIRONMENT, CHANGE, VERSION and SHARE_PERCENT as deploy.yml's inputs have them, GITHUB_REPOSITORY, and DIGESTS: a
folder with a file for each image, which has its name and holds its digest.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ARGOCD = Path("charts/argocd")
COMPONENTS = ("gateway", "transcriber", "persistence", "triton")
ISSUER = "https://token.actions.githubusercontent.com"
PUSHES = 5  # attempts, when others push to main at the same time

ENVIRONMENT, CHANGE = os.environ["ENVIRONMENT"], os.environ.get("CHANGE", "")
VERSION, SHARE_PERCENT = os.environ.get("VERSION", ""), os.environ.get("SHARE_PERCENT", "")
REPOSITORY, DIGESTS = os.environ.get("GITHUB_REPOSITORY", ""), Path(os.environ.get("DIGESTS", "digests"))


def collect() -> None:
    """Write the digests that the change concerns, as they run in staging or already in the environment."""
    DIGESTS.mkdir()
    if CHANGE == "images":
        images = _environment("staging")["images"]
        found = {name: images[name]["digest"] for name in COMPONENTS}
    else:
        model = _environment("staging" if CHANGE == "model add" else ENVIRONMENT)["model"]
        version = next((entry for entry in model["versions"] if str(entry["version"]) == VERSION), None)
        found = {_model_image(): version["digest"] if version else None}
    for name, digest in found.items():
        if not digest:
            sys.exit(f"{name} {VERSION} has no digest to promote: has it been built, and promoted to staging?")
        (DIGESTS / name).write_text(digest)


def verify() -> None:
    """End with an error unless image.yml, run on main or for a tag, has signed every image."""
    identity = (
        rf"^https://github\.com/{re.escape(REPOSITORY)}/\.github/workflows/image\.yml@refs/(heads/main|tags/[0-9.]+)$"
    )
    for name, digest in _digests():
        image = f"{_registry()}/{name}@{digest}"
        options = ("--certificate-oidc-issuer", ISSUER, "--certificate-identity-regexp", identity)
        _run("cosign", "verify", *options, image)


def change() -> None:
    """Change the environment's file. Refuses an image or a model of another owner, because that was not verified."""
    own = f"{_registry()}/{_model_image()}"
    for version in _environment(ENVIRONMENT)["model"]["versions"]:
        if version["image"] != own:
            sys.exit(f"{ENVIRONMENT} takes the model's version {version['version']} from {version['image']}, not {own}")
    kind, _, what = CHANGE.partition(" ")
    for name, digest in _digests():
        if kind == "model" and name != _model_image():
            sys.exit(f"{ENVIRONMENT} serves {_model_image()}, not {name}")
        arguments = {"": (name, digest), "add": (VERSION, digest), "canary": (VERSION, SHARE_PERCENT)}
        steps = ("image",) if kind == "images" else ("model", what)
        _run(sys.executable, str(ARGOCD / "promote.py"), ENVIRONMENT, *steps, *arguments.get(what, (VERSION,)))


def push() -> None:
    """Commit the change and push it to main, or report that there is nothing to change."""
    file = str(ARGOCD / "environments" / f"{ENVIRONMENT}.yaml")
    if subprocess.run(("git", "diff", "--quiet", "--", file), check=False).returncode == 0:
        print(f"{ENVIRONMENT} has it already")
        return
    author = (
        "-c",
        "user.name=github-actions[bot]",
        "-c",
        "user.email=41898282+github-actions[bot]@users.noreply.github.com",
    )
    title = f"Promote to {ENVIRONMENT}: {' '.join(filter(None, (CHANGE, VERSION)))}"
    _run("git", *author, "commit", "--message", title, "--", file)
    for _ in range(PUSHES):
        if subprocess.run(("git", "push", "origin", "HEAD:main"), check=False).returncode == 0:
            return
        _run("git", *author, "pull", "--rebase", "origin", "main")
    sys.exit("main has moved on each time: run this again")


def serving() -> None:
    """Print the default version and its image, or nothing before the first promotion."""
    model = _environment(ENVIRONMENT)["model"]
    entry = next(entry for entry in model["versions"] if entry["version"] == model["default"])
    if entry["digest"]:
        print(entry["version"], f"{entry['image']}@{entry['digest']}")


def _environment(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ARGOCD / "environments" / f"{name}.yaml").read_text())
    return values


def _registry() -> str:
    return f"ghcr.io/{REPOSITORY.partition('/')[0].lower()}"


def _model_image() -> str:
    return f"model-{_environment(ENVIRONMENT)['model']['name']}"


def _digests() -> Iterator[tuple[str, str]]:
    files = sorted(DIGESTS.iterdir())
    if not files:
        sys.exit("there is no digest to promote")
    for file in files:
        yield file.name, file.read_text().strip()


def _run(*command: str) -> None:
    print("+", *command, flush=True)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    {"collect": collect, "verify": verify, "change": change, "push": push, "serving": serving}[sys.argv[1]]()
