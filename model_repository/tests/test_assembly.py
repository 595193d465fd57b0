"""`assemble` gives a starting server a repository of complete versions, with the routing from its arguments."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner, Result
from whisperline_models.cli import app
from whisperline_models.manifest import Manifest
from whisperline_models.rollout import Repository
from whisperline_models.routing.state import Canary, Rollout


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def assembled(models: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["assemble", "--repository", str(models), *map(str, arguments)])


def said(result: Result) -> str:
    return " ".join(result.output.split())


def test_versions_are_whole_and_routed(exported: Path, models: Path) -> None:
    """Each version is complete under its number, and the routing is the one from the arguments."""
    where = ("--version", f"3={exported}", "--version", f"4={exported}")
    result = assembled(models, *where, "--default", "3", "--canary", "4", "--share", "25%")
    assert result.exit_code == 0, result.output
    repository = Repository(models)
    assert repository.versions() == [3, 4]
    assert Manifest.read_checked(repository.folder(4)).content == Manifest.read_checked(exported).content
    routing = repository.routing()
    assert (routing.default, routing.canary) == (3, Canary(4, 0.25))


def test_a_version_can_be_read_by_any_user(exported: Path) -> None:
    """A container can assemble what another user exported."""
    assert [path.name for path in exported.rglob("*") if path.is_file() and not path.stat().st_mode & 0o004] == []


def test_a_restart_assembles_anew(exported: Path, models: Path) -> None:
    """An assembly replaces the result of an earlier one, even an unfinished one."""
    assert assembled(models, "--version", f"3={exported}", "--default", "3").exit_code == 0
    (models / "whisper/3/encoder_0.onnx").unlink()
    assert assembled(models, "--version", f"5={exported}", "--default", "5").exit_code == 0
    assert Repository(models).versions() == [5]
    Manifest.read_checked(models / "whisper/5")


def test_a_published_repository_is_left_alone(exported: Path, models: Path) -> None:
    """A repository that was published to is not replaced."""
    published = Repository(models)
    models.mkdir()
    published.add(exported, Manifest.read_checked(exported))
    result = assembled(models, "--version", f"3={exported}", "--default", "3")
    assert result.exit_code == 1
    assert "was published to" in said(result)
    assert published.versions() == [1]


def test_a_damaged_version_is_refused(exported: Path, models: Path, tmp_path: Path) -> None:
    """A file that differs from the manifest stops the assembly."""
    damaged = shutil.copytree(exported, tmp_path / "damaged")
    with (damaged / "encoder_0.onnx").open("ab") as file:
        file.write(b"\0")
    result = assembled(models, "--version", f"3={damaged}", "--default", "3")
    assert result.exit_code == 1
    assert "is not what was exported: encoder_0.onnx" in said(result)


def test_the_mounted_routing_is_linked(exported: Path, models: Path, tmp_path: Path) -> None:
    """With --routing, replacing the file changes the routing of the repository without another assembly."""
    mounted = tmp_path / "rollout.json"
    mounted.write_text(Rollout(3).to_json())
    where = ("--version", f"3={exported}", "--version", f"4={exported}", "--routing", mounted)
    assert assembled(models, *where).exit_code == 0
    mounted.write_text(Rollout(4).to_json())
    assert Repository(models).routing().default == 4


def test_the_mounted_routing_may_be_ahead_of_the_server(exported: Path, models: Path, tmp_path: Path) -> None:
    """A server can restart while the routing already names a version that only newer servers have."""
    mounted = tmp_path / "rollout.json"
    mounted.write_text(Rollout(4).to_json())
    result = assembled(models, "--version", f"3={exported}", "--routing", mounted)
    assert result.exit_code == 0, result.output
    assert Repository(models).versions() == [3]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--default", "4"), "version 4 is to serve, but only [3] are there"),
        (("--default", "3", "--canary", "4"), "version 4 is to serve"),
        ((), "--default"),
        (("--default", "3", "--version", "four=/versions/4"), "--version 'four=/versions/4'"),
    ],
)
def test_a_routing_to_an_absent_version_is_refused_by_name(
    exported: Path, models: Path, arguments: tuple[str, ...], reason: str
) -> None:
    """Without a routing, or with one to a missing version, the command exits with 1 and gives the reason."""
    result = assembled(models, "--version", f"3={exported}", *arguments)
    assert result.exit_code == 1
    assert reason in said(result)
    assert not (models / "whisper").exists()


def test_a_broken_routing_is_refused(exported: Path, models: Path, tmp_path: Path) -> None:
    """An invalid routing file stops the assembly, because Triton could not load the model that reads it."""
    (tmp_path / "rollout.json").write_text(json.dumps({"default": "3"}))
    result = assembled(models, "--version", f"3={exported}", "--routing", tmp_path / "rollout.json")
    assert result.exit_code == 1
    assert "is not the state of a rollout" in said(result)


def test_parameters_of_serving_are_set(exported: Path, models: Path) -> None:
    """--slots and --max-requests apply to all versions; the other parameters keep their values."""
    result = assembled(models, "--version", f"3={exported}", "--default", "3", "--slots", "48", "--max-requests", "99")
    assert result.exit_code == 0, result.output
    config = text_format.Parse((models / "whisper/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    found = {name: value.string_value for name, value in config.parameters.items()}
    assert {"slots": "48", "max_requests": "99", "threads": "0", "languages.3": "en"}.items() <= found.items()
    assert config.model_transaction_policy.decoupled


def test_init_keeps_what_is_there(exported: Path, models: Path) -> None:
    """With --keep, a repository that has versions is not changed, and no weights are fetched."""
    assert assembled(models, "--version", f"3={exported}", "--default", "3").exit_code == 0
    result = CliRunner().invoke(app, ["init", "no/such-model", "--repository", str(models), "--keep"])
    assert result.exit_code == 0, result.output
    assert Repository(models).versions() == [3]
