"""The command line reads its settings when it is called, and shows errors as one line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner
from whisperline_models.cli import app
from whisperline_models.manifest import Manifest
from whisperline_models.rollout import Repository


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Repository:
    """A repository with version 1 in service."""
    made = Repository(tmp_path / "models")
    with made.changing():
        made.add_first(exported, Manifest.read(exported))
    return made


def test_the_repository_is_that_of_the_environment(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set after the import takes effect; an option overrides it."""
    monkeypatch.setenv("WHISPERLINE_MODEL_REPOSITORY", str(repository.path))
    assert "default, 100%" in CliRunner().invoke(app, ["list"]).output
    elsewhere = CliRunner().invoke(app, ["list", "--repository", str(repository.path / "elsewhere")])
    assert "default" not in elsewhere.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["promote"], "promote failed: there is no canary to promote"),
        (["rollback"], "rollback failed: version 1 is the first default"),
        (["canary", "--version", "1"], "canary failed: version 1 is the default already"),
        (["remove", "1"], "remove failed: version 1 is the last one"),
        (["canary", "--version", "2"], "canary failed:"),
    ],
)
def test_a_change_that_is_not_allowed_is_one_line(repository: Repository, arguments: list[str], reason: str) -> None:
    """The command exits with 1 and prints the failed step and the reason, without a traceback."""
    result = CliRunner().invoke(app, [*arguments, "--repository", str(repository.path)])
    assert result.exit_code == 1
    assert reason in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_broken_routing_is_one_line(repository: Repository) -> None:
    """Every command that needs rollout.json names the file if it cannot be read."""
    repository.rollout_file.write_text("{}")
    for command in (["list"], ["promote"]):
        result = CliRunner().invoke(app, [*command, "--repository", str(repository.path)])
        assert result.exit_code == 1
        assert "is not the state of a rollout" in " ".join(result.output.split())
