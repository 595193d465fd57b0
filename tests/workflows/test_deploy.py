"""Run the steps of deploy.yml with the real promote.py, in a real clone that pushes to a real repository."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
PROMOTION = CHECKOUT / ".github" / "promotion.py"
ENVIRONMENT = CHECKOUT / "tests" / "charts" / "environment.yaml"  # before any promotion
DIGEST, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
COSIGN = '#!/bin/sh\necho "$@" >> cosign.txt\n! echo "$@" | grep -q "$REFUSED"\n'


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(("git", *who, *arguments), cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@dataclass(frozen=True)
class Clone:
    """A clone of a repository that has only the environments and promote.py."""

    folder: Path

    def step(self, step: str, environment: str, change: str, version: str = "", **more: str) -> tuple[int, str]:
        """Run a step as the workflow does, and return its exit status and its output."""
        env = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "GITHUB_REPOSITORY": "Somebody/speech",
            "REFUSED": "nobody",
            **{"ENVIRONMENT": environment, "CHANGE": change, "VERSION": version, "SHARE_PERCENT": "10"},
            **more,
        }
        command = (sys.executable, str(PROMOTION), step)
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def values(self, environment: str) -> dict[str, object]:
        """Return the values in the environment's file."""
        file = self.folder / "charts" / "argocd" / "environments" / f"{environment}.yaml"
        values: dict[str, object] = yaml.safe_load(file.read_text())
        return values

    def built(self, **digests: str) -> None:
        """Write digests where a run leaves its artifacts."""
        (self.folder / "digests").mkdir()
        for name, digest in digests.items():
            (self.folder / "digests" / name).write_text(f"{digest}\n")

    def forget(self) -> None:
        """Empty the folder for the next run."""
        shutil.rmtree(self.folder / "digests")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Yield a fresh clone with a cosign that records its arguments."""
    origin, first = tmp_path / "origin.git", tmp_path / "first"
    shutil.copytree(CHECKOUT / "charts" / "argocd", first / "charts" / "argocd")
    for environment in ("staging", "production"):
        shutil.copy(ENVIRONMENT, first / "charts" / "argocd" / "environments" / f"{environment}.yaml")
    git(tmp_path, "init", "--bare", str(origin))
    git(first, "init")
    git(first, "add", ".")
    git(first, "commit", "--message", "Begin")
    git(first, "push", str(origin), "HEAD:main")
    git(tmp_path, "clone", str(origin), "clone")
    cosign = tmp_path / "clone" / "cosign"
    cosign.write_text(COSIGN)
    cosign.chmod(cosign.stat().st_mode | stat.S_IXUSR)
    return Clone(tmp_path / "clone")


Promote = Callable[..., None]


@pytest.fixture
def promote(clone: Clone) -> Promote:
    """Run steps that must all succeed."""

    def run(steps: str, environment: str, change: str, version: str = "", **more: str) -> None:
        for step in steps.split():
            code, said = clone.step(step, environment, change, version, **more)
            assert code == 0, said

    return run


def test_what_was_built_is_promoted_to_staging_in_one_commit(clone: Clone, promote: Promote) -> None:
    """The run's digests reach the file in one commit on main that changes nothing else."""
    clone.built(gateway=DIGEST, triton=OTHER)
    promote("verify change push", "staging", "images")
    shown = git(clone.folder, "show", "--numstat", "--format=%s", "origin/main").split()
    assert shown == ["Promote", "to", "staging:", "images", "2", "2", "charts/argocd/environments/staging.yaml"]
    assert git(clone.folder, "show", "origin/main:charts/argocd/environments/staging.yaml").count(DIGEST) == 1


def test_production_takes_what_runs_in_staging(clone: Clone, promote: Promote) -> None:
    """Production takes every image of staging, but only if each has been promoted there."""
    code, said = clone.step("collect", "production", "images")
    assert (code, "has no digest to promote" in said) == (1, True)
    clone.forget()
    clone.built(gateway=DIGEST, transcriber=DIGEST, persistence=DIGEST, triton=OTHER)
    promote("change", "staging", "images")
    clone.forget()
    promote("collect verify change", "production", "images")
    assert clone.values("production")["images"] == clone.values("staging")["images"]


def test_every_image_must_be_signed_by_the_workflow(clone: Clone) -> None:
    """An image that image.yml of this repository has not signed, on main or a tag, ends the promotion."""
    clone.built(gateway=DIGEST, triton=OTHER)
    code, _ = clone.step("verify", "staging", "images", REFUSED=OTHER)
    assert code == 1
    asked = (clone.folder / "cosign.txt").read_text().splitlines()
    assert [line.split()[-1] for line in asked] == [
        f"ghcr.io/somebody/gateway@{DIGEST}",
        f"ghcr.io/somebody/triton@{OTHER}",
    ]
    assert r"image\.yml@refs/(heads/main|tags/[0-9.]+)$" in asked[0]
    assert "--certificate-oidc-issuer https://token.actions.githubusercontent.com" in asked[0]


def test_a_promotion_of_nothing_is_an_error(clone: Clone) -> None:
    """A run without artifacts fails instead of appearing to have nothing to do."""
    clone.built()
    assert clone.step("verify", "staging", "images")[0] == 1


def test_a_version_of_the_model_is_loaded_tried_and_made_the_default(clone: Clone, promote: Promote) -> None:
    """Each step of a roll-out is a commit of its own, and production can load the version that staging has."""
    clone.built(**{"model-tiny.en": DIGEST})
    promote("verify change push", "staging", "model add", "2")
    clone.forget()
    promote("collect verify change push", "staging", "model canary", "2")
    assert clone.values("staging")["model"]["canary"] == {"version": 2, "sharePercent": 10}  # type: ignore[index]
    clone.forget()
    promote("collect change push", "staging", "model default", "2")
    clone.forget()
    promote("collect verify change push", "production", "model add", "2")
    model = clone.values("production")["model"]
    assert model["default"] == 1  # type: ignore[index]
    assert model["versions"][1]["digest"] == DIGEST  # type: ignore[index]
    titles = git(clone.folder, "log", "--format=%s", "origin/main").splitlines()
    assert titles[0] == "Promote to production: model add 2"
    assert len(titles) == 5


def test_the_first_version_is_loaded_and_can_be_gone_back_to(clone: Clone, promote: Promote) -> None:
    """Version 1, which the file names before it exists, goes through the same steps as any other."""
    clone.built(**{"model-tiny.en": DIGEST})
    promote("verify change push", "staging", "model add", "1")
    promote("change push", "staging", "model add", "2")
    promote("change push", "staging", "model default", "2")
    clone.forget()
    promote("collect verify change push", "staging", "model default", "1")
    clone.forget()
    promote("collect verify change push", "production", "model add", "1")
    assert clone.values("production")["model"]["versions"][0]["digest"] == DIGEST  # type: ignore[index]


@pytest.mark.parametrize(("change", "version"), [("images", ""), ("model add", "2")])
def test_a_model_of_another_owner_is_refused(clone: Clone, change: str, version: str) -> None:
    """A fork that still names upstream's model is refused: the verified image would not be the one that runs."""
    clone.built(**{"model-tiny.en" if version else "gateway": DIGEST})
    code, said = clone.step("change", "staging", change, version, GITHUB_REPOSITORY="Another/speech")
    assert code == 1
    assert "from ghcr.io/somebody/model-tiny.en, not ghcr.io/another/model-tiny.en" in said


def test_a_version_of_another_model_is_refused(clone: Clone) -> None:
    """An environment serves versions of one model only."""
    clone.built(**{"model-base": DIGEST})
    code, said = clone.step("change", "staging", "model add", "2")
    assert (code, "staging serves model-tiny.en, not model-base" in said) == (1, True)


def test_a_push_that_comes_second_is_made_again(clone: Clone, promote: Promote, tmp_path: Path) -> None:
    """A push that another one preceded is repeated on top of it."""
    clone.built(gateway=DIGEST)
    promote("change", "staging", "images")
    other = tmp_path / "first"
    (other / "notes.txt").write_text("meanwhile")
    git(other, "add", "notes.txt")
    git(other, "commit", "--message", "Meanwhile")
    git(other, "push", str(tmp_path / "origin.git"), "HEAD:main")
    promote("push", "staging", "images")
    titles = git(clone.folder, "log", "--format=%s", "origin/main").splitlines()
    assert titles == ["Promote to staging: images", "Meanwhile", "Begin"]


def test_what_runs_already_makes_no_commit(clone: Clone, promote: Promote) -> None:
    """Promoting what already runs succeeds without a commit."""
    clone.built(gateway=DIGEST)
    promote("change push change push", "staging", "images")
    assert len(git(clone.folder, "log", "--format=%s", "origin/main").splitlines()) == 2


def test_the_version_that_serves_is_told(clone: Clone, promote: Promote) -> None:
    """The step prints nothing before the first promotion, and afterwards the version and its image by digest."""
    assert clone.step("serving", "staging", "") == (0, "")
    clone.built(**{"model-tiny.en": DIGEST})
    promote("change", "staging", "model add", "2")
    promote("change", "staging", "model default", "2")
    assert clone.step("serving", "staging", "") == (0, f"2 ghcr.io/somebody/model-tiny.en@{DIGEST}\n")
