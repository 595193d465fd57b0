"""Test promotions: each changes one line of one file, and reverting it is the rollback."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from rendering import CHARTS, merged_values, render, values_file
from scenarios import ENVIRONMENTS

DIGESTS = [f"sha256:{character * 64}" for character in "ab"]
REGISTRY = values_file("charts/whisperline/values.yaml")["images"]["registry"]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("promote", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


promote = _load(CHARTS / "argocd" / "promote.py")
ENVIRONMENT = (Path(__file__).parent / "environment.yaml").read_text()


def changed(before: str, after: str) -> list[tuple[str, str]]:
    return [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]


@pytest.mark.parametrize("component", promote.COMPONENTS)
def test_a_digest_is_one_line(component: str) -> None:
    """Setting a digest changes one line each time, and setting the former digest restores the text."""
    first = promote.set_digest(ENVIRONMENT, component, DIGESTS[0])
    second = promote.set_digest(first, component, DIGESTS[1])
    assert len(changed(ENVIRONMENT, first)) == 1
    assert changed(first, second) == [(f"    digest: {DIGESTS[0]}", f"    digest: {DIGESTS[1]}")]
    assert yaml.safe_load(second)["images"][component]["digest"] == DIGESTS[1]
    assert promote.set_digest(second, component, DIGESTS[0]) == first


def test_what_is_promoted_is_what_runs() -> None:
    """The rendered workload runs the promoted digest, and its tag is ignored."""
    values = yaml.safe_load(promote.set_digest(ENVIRONMENT, "transcriber", DIGESTS[0]))
    layers = values_file("charts/argocd/environments/production/whisperline.yaml"), values
    rendered = yaml.safe_dump_all(render("whisperline", merged_values(*layers)))
    assert f"{REGISTRY}/transcriber@{DIGESTS[0]}" in rendered
    assert f"{REGISTRY}/gateway@{DIGESTS[0]}" not in rendered


def test_a_version_of_the_model_comes_serves_and_goes() -> None:
    """A version is added, tried and made the default, the former one is removed; each step leaves a valid file."""
    text = promote.add_version(ENVIRONMENT, 2, DIGESTS[0])
    assert yaml.safe_load(text)["model"]["versions"][1] == {
        "version": 2,
        "image": "ghcr.io/somebody/model-tiny.en",
        "tag": "2",
        "digest": DIGESTS[0],
    }
    trial = promote.set_canary(text, 2, 10)
    assert yaml.safe_load(trial)["model"]["canary"] == {"version": 2, "sharePercent": 10}
    assert promote.set_canary(trial, 2, 0) == text
    serving = promote.set_default(trial, 2)
    assert yaml.safe_load(serving)["model"] | {"versions": []} == {
        "name": "tiny.en",
        "versions": [],
        "default": 2,
        "canary": None,
    }
    alone = yaml.safe_load(promote.remove_version(serving, 1))["model"]["versions"]
    assert [entry["version"] for entry in alone] == [2]
    base = values_file("charts/argocd/environments/production/whisperline.yaml")
    for step in (text, trial, serving):
        render("whisperline", merged_values(base, yaml.safe_load(step)))


def test_removing_what_was_added_restores_the_text() -> None:
    """Adding and removing a version leaves no trace."""
    assert promote.remove_version(promote.add_version(ENVIRONMENT, 7, DIGESTS[0]), 7) == ENVIRONMENT


def test_the_first_version_gets_the_digest_that_it_has_not_yet() -> None:
    """A version that has only a tag gets its digest, in one line and only once."""
    text = promote.add_version(ENVIRONMENT, 1, DIGESTS[0])
    assert changed(ENVIRONMENT, text) == [('      digest: ""', f"      digest: {DIGESTS[0]}")]
    assert yaml.safe_load(text)["model"]["versions"][0]["digest"] == DIGESTS[0]
    with pytest.raises(promote.Refused, match="is there"):
        promote.add_version(text, 1, DIGESTS[1])


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_runs_can_be_promoted(name: str) -> None:
    """The current environments, whatever was promoted to them, accept new images and a version that comes and goes."""
    text = (CHARTS / f"argocd/environments/{name}.yaml").read_text()
    for component in promote.COMPONENTS:
        text = promote.set_digest(text, component, DIGESTS[0])
    version = 1 + max(entry["version"] for entry in yaml.safe_load(text)["model"]["versions"])
    more = promote.add_version(text, version, DIGESTS[1])
    base = values_file(f"charts/argocd/environments/{name}/whisperline.yaml")
    render("whisperline", merged_values(base, yaml.safe_load(more)))
    assert promote.remove_version(more, version) == text


def test_comments_stay() -> None:
    """No promotion loses a comment."""
    commented = ENVIRONMENT.replace("  default: 1", "  # what serves\n  default: 1 # since May")
    text = promote.set_default(promote.add_version(commented, 2, DIGESTS[0]), 2)
    assert "  # what serves\n  default: 2 # since May\n" in text


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["image", "gatewy", DIGESTS[0]], "gatewy"),
        (["image", "gateway", "sha256:abc"], "is no digest"),
        (["image", "gateway", "latest"], "is no digest"),
        (["image", "gateway"], "give a digest"),
        (["image", "gateway", "--from", "staging"], "is no digest"),
        (["model", "add", "2", "2"], "is no digest"),
        (["model", "default", "9"], "not loaded"),
        (["model", "canary", "9", "10"], "not loaded"),
        (["model", "canary", "1", "10"], "default already"),
        (["model", "canary", "1", "100"], "share"),
        (["model", "remove", "1"], "serves sessions"),
    ],
)
def test_what_is_no_promotion_is_refused(
    command: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown component, a malformed digest or a missing version is refused by name; the file stays unchanged."""
    copy = _copy(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        copy.main(["production", *command])
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err
    assert (tmp_path / "environments/production.yaml").read_text() == ENVIRONMENT


def test_production_takes_what_runs_in_staging(tmp_path: Path) -> None:
    """`--from staging` writes staging's digest into production's file and changes no other file."""
    copy = _copy(tmp_path)
    copy.main(["staging", "image", "triton", DIGESTS[1]])
    staging = (tmp_path / "environments/staging.yaml").read_text()
    copy.main(["production", "image", "triton", "--from", "staging"])
    assert (
        yaml.safe_load((tmp_path / "environments/production.yaml").read_text())["images"]["triton"]["digest"]
        == DIGESTS[1]
    )
    assert (tmp_path / "environments/staging.yaml").read_text() == staging


def _copy(folder: Path) -> ModuleType:
    """Copy the script and two environments to a folder where a test may change them."""
    (folder / "environments").mkdir()
    for name in ENVIRONMENTS:
        (folder / "environments" / f"{name}.yaml").write_text(ENVIRONMENT)
    shutil.copy(CHARTS / "argocd/promote.py", folder)
    return _load(folder / "promote.py")
