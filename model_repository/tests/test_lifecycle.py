"""Only a complete version that passed its gate with exactly its files comes into service."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from whisperline_models import rollout
from whisperline_models.cli import app
from whisperline_models.errors import GateError, RolloutError, ServerError, VersionError
from whisperline_models.manifest import Gate, Manifest, file_checksums, utc_now
from whisperline_models.rollout import Repository, Server, resolve
from whisperline_models.routing.state import Rollout

NOBODY = "127.0.0.1:1"  # no server listens there
CRASH = """
import os, signal, sys
from pathlib import Path
from whisperline_models.manifest import Manifest
from whisperline_models.rollout import Repository

def die(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith("/written"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
source = Path(sys.argv[2])
Repository(Path(sys.argv[1])).add(source, Manifest.read(source))
"""
CRASH_OF_FIRST = """
import os, signal, sys
from pathlib import Path
from whisperline_models import rollout
from whisperline_models.rollout import Repository

def die(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("/whisper_rollout"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
rollout.publish(Path(sys.argv[2]), Repository(Path(sys.argv[1])), (), "a test", print)
"""


@pytest.fixture
def staged(exported: Path, tmp_path: Path) -> Path:
    """A copy of the version, for a test to damage."""
    return shutil.copytree(exported, tmp_path / "staged")


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Repository:
    """A repository with version 1 in service."""
    found = Repository(tmp_path / "models")
    rollout.publish(shutil.copytree(exported, tmp_path / "first"), found, (), "the first", _quiet)
    return found


def _quiet(_line: str) -> None:
    pass


def _pass_gate(folder: Path, repository: Repository, **more: object) -> None:
    manifest, serving = Manifest.read(folder), repository.in_service()
    fields = {
        **{
            "content": manifest.content,
            "passed": True,
            "verified_at": utc_now(),
            "set_name": "s",
            "set_sha256": "",
        },
        **{
            "clips": 1,
            "audio_s": 1,
            "speech_s": 1,
            "word_error_rate": 0.1,
            "most_word_error_rate": 0.1,
            "non_speech_clips": 1,
        },
        **{"heard_in_non_speech": (), "against": serving and serving[1].content, **more},
    }
    manifest.model_copy(update={"gate": Gate.model_validate(fields)}).write(folder)


def _publish(folder: Path, repository: Repository, *addresses: str, waiver: str | None = None) -> int:
    return rollout.publish(folder, repository, [Server(address) for address in addresses], waiver, _quiet)


def test_a_version_with_its_gate_comes_in_as_the_next(staged: Path, repository: Repository) -> None:
    """A version that passed its gate is copied unchanged under the next number, and gets no sessions."""
    _pass_gate(staged, repository)
    assert _publish(staged, repository) == 2
    assert repository.versions() == [1, 2]
    assert file_checksums(repository.folder(2)) == file_checksums(staged)
    assert Manifest.read_checked(repository.folder(2)).gate is not None
    assert repository.routing().default == 1


def test_without_a_gate_nothing_comes_in(staged: Path, repository: Repository) -> None:
    """A version without a gate, or with a failed or outdated one, is refused with the reason."""
    with pytest.raises(GateError, match="has no gate"):
        _publish(staged, repository)
    for more, reason in (
        ({"passed": False}, "has failed its gate"),
        ({"content": "0"}, "is not what its gate was passed with"),
        ({"against": None}, "was not held against version 1"),
    ):
        _pass_gate(staged, repository, **more)
        with pytest.raises(GateError, match=reason):
            _publish(staged, repository)
    assert repository.versions() == [1]


def test_a_first_version_needs_a_gate_too(staged: Path, tmp_path: Path) -> None:
    """A first version without a gate is refused; with a waiver it is accepted, and the manifest has the reason."""
    repository = Repository(tmp_path / "models")
    with pytest.raises(GateError, match="has no gate"):
        _publish(staged, repository)
    assert _publish(staged, repository, waiver="a test") == 1
    waiver = Manifest.read(repository.folder(1)).waiver
    assert waiver is not None
    assert waiver.reason == "a test"


def _flip(folder: Path) -> None:
    path = folder / "decoder.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        _flip,
        lambda folder: (folder / "engine" / "more.py").write_text(""),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ],
)
def test_a_version_that_is_not_as_exported_is_refused(
    staged: Path, repository: Repository, spoil: Callable[[Path], object]
) -> None:
    """A version with a changed, an added or a missing file is refused, with a gate and with a waiver."""
    _pass_gate(staged, repository)
    spoil(staged)
    for waiver in (None, "a test"):
        with pytest.raises(VersionError, match="is not what was exported"):
            _publish(staged, repository, waiver=waiver)
    assert repository.versions() == [1]


def test_a_gate_does_not_outlive_a_change_of_the_manifest(staged: Path, repository: Repository) -> None:
    """If the windows in the manifest are edited after the gate, the version is refused."""
    _pass_gate(staged, repository)
    fields = json.loads((staged / "manifest.json").read_text())
    (staged / "manifest.json").write_text(json.dumps({**fields, "windows_s": [5, 30]}))
    with pytest.raises(GateError, match="is not what its gate was passed with"):
        _publish(staged, repository)


def test_a_publisher_that_is_killed_leaves_no_version(staged: Path, repository: Repository) -> None:
    """A publisher killed before the rename leaves nothing that Triton sees, and the next one removes the rest."""
    done = subprocess.run([sys.executable, "-c", CRASH, repository.path, staged], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in repository.path.glob(".unfinished-*/written/manifest.json")] == ["manifest.json"]
    assert sorted(path.name for path in repository.model.iterdir()) == ["1", "config.pbtxt"]
    assert _publish(staged, repository, waiver="a test") == 2
    assert list(repository.path.glob(".unfinished-*")) == []


def test_a_first_publisher_that_is_killed_leaves_a_repository_for_the_next(staged: Path, tmp_path: Path) -> None:
    """A first version whose publisher was killed before it had a routing is removed, and its number is not reused."""
    repository = Repository(tmp_path / "models")
    done = subprocess.run([sys.executable, "-c", CRASH_OF_FIRST, repository.path, staged], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (repository.versions(), repository.rollout()) == ([1], None)
    assert _publish(staged, repository, waiver="a test") == 2
    assert (repository.versions(), repository.routing().default) == ([2], 2)


def test_a_repository_is_made_where_a_first_publisher_was_killed(staged: Path, cache: Path, tmp_path: Path) -> None:
    """`init`, which a container runs at every start, also removes such a version."""
    repository = Repository(tmp_path / "models")
    subprocess.run([sys.executable, "-c", CRASH_OF_FIRST, repository.path, staged], check=False)
    made = CliRunner().invoke(
        app, ["init", "tiny.en", "--keep", "--repository", str(repository.path), "--cache", str(cache)]
    )
    assert made.exit_code == 0, made.output
    assert (repository.versions(), repository.routing().default) == ([2], 2)


def test_a_gate_of_an_older_tool_is_read(staged: Path, repository: Repository) -> None:
    """A gate of an older tool, without the length of the speech, is valid."""
    _pass_gate(staged, repository)
    fields = json.loads((staged / "manifest.json").read_text())
    del fields["gate"]["speech_s"]
    (staged / "manifest.json").write_text(json.dumps(fields))
    assert _publish(staged, repository) == 2


def test_a_version_that_no_server_loads_goes_out_again(staged: Path, repository: Repository) -> None:
    """After a failed publication, the repository is as before, and the number is not used again."""
    with pytest.raises(ServerError, match="version 2 is out again"):
        _publish(staged, repository, NOBODY, waiver="a test")
    assert repository.versions() == [1]
    assert _publish(staged, repository, waiver="a test") == 3


def test_a_first_version_that_no_server_loads_leaves_an_empty_repository(staged: Path, tmp_path: Path) -> None:
    """After a first version fails to load, no routing is left that names it."""
    repository = Repository(tmp_path / "models")
    with pytest.raises(ServerError, match="version 1 is out again"):
        _publish(staged, repository, NOBODY, waiver="a test")
    assert (repository.versions(), repository.rollout()) == ([], None)
    assert _publish(staged, repository, waiver="a test") == 2


def test_a_repository_that_does_not_say_what_is_in_service_is_refused(staged: Path, repository: Repository) -> None:
    """A repository with versions but no routing is refused: the new version would get every session at once."""
    shutil.rmtree(repository.path / "whisper_rollout")
    with pytest.raises(VersionError, match="has versions but no whisper_rollout"):
        _publish(staged, repository, waiver="a test")


def test_another_interface_is_refused(staged: Path, repository: Repository) -> None:
    """A version with other tensors is refused, because all versions share one config.pbtxt."""
    config = (staged / "config.pbtxt").read_text()
    (staged / "config.pbtxt").write_text(config.replace('name: "audio"', 'name: "samples"'))
    manifest = Manifest.read(staged)
    manifest.model_copy(update={"files": file_checksums(staged)}).write(staged)
    with pytest.raises(VersionError, match="another interface"):
        _publish(staged, repository, waiver="a test")


def test_only_one_command_changes_a_repository(staged: Path, repository: Repository) -> None:
    """A second command is refused with the reason while the first is running."""
    with repository.changing(), pytest.raises(VersionError, match="is being changed by another command"):
        _publish(staged, Repository(repository.path), waiver="a test")


def test_a_canary_must_answer_before_it_gets_sessions(staged: Path, repository: Repository) -> None:
    """Without a server, its answer or the version, the routing does not change."""
    _publish(staged, repository, waiver="a test")
    for servers, number, reason in (
        ([], 2, "name the servers"),
        ([Server(NOBODY)], 2, "does not answer"),
        ([], 7, "has no version 7"),
    ):
        with pytest.raises((VersionError, ServerError), match=reason):
            rollout.start_canary(repository, servers, number, 0.1, _quiet)
    assert repository.routing().canary is None


def test_a_version_in_service_is_not_removed(staged: Path, repository: Repository) -> None:
    """The last version, the default and the canary cannot be removed; an idle one can, and its number is not reused."""
    with pytest.raises(VersionError, match="is the last one"):
        rollout.remove(repository, (), 1, 0, _quiet)
    _publish(staged, repository, waiver="a test")
    repository.route(Rollout(1).with_canary(2, 0.1))
    for number in (1, 2):
        with pytest.raises(RolloutError, match=r"is the (default|canary)"):
            rollout.remove(repository, (), number, 0, _quiet)
    repository.route(Rollout(2, None, (1,)))
    rollout.remove(repository, (), 1, 0, _quiet)
    assert (repository.versions(), repository.routing().previous) == ([2], ())
    assert _publish(staged, repository, waiver="a test") == 3


def test_a_version_that_a_server_does_not_unload_stays(staged: Path, repository: Repository) -> None:
    """If the removal fails, the version's folder is in its place, unchanged."""
    _publish(staged, repository, waiver="a test")
    with pytest.raises(ServerError, match="version 2 stays"):
        rollout.remove(repository, [Server(NOBODY)], 2, 0, _quiet)
    assert file_checksums(repository.folder(2)) == file_checksums(staged)


def test_every_machine_behind_a_name_is_meant() -> None:
    """Names become addresses without duplicates; an invalid address is refused."""
    assert resolve(["127.0.0.1:8001", "127.0.0.1:8001", "[::1]:8001"]) == ["127.0.0.1:8001", "[::1]:8001"]
    for wrong in ("triton", "triton:", "nowhere.invalid:8001"):
        with pytest.raises(ServerError):
            resolve([wrong])
