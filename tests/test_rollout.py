"""No request fails while versions of the model come into service and leave it, under load on a real Triton."""

import asyncio
import collections
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
import soundfile
from prometheus_client import REGISTRY
from rollout import Load, models, versions_of
from stacks import CACHE, local_settings
from streams import RATE, Samples, eventually
from test_pipeline import BECKETT, JFK
from whisperline_local import Stack
from whisperline_models.manifest import Manifest, file_checksums
from whisperline_models.rollout import Repository
from whisperline_models.routing.state import Rollout
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SESSIONS = [f"session-{number}" for number in range(40)]
WORKERS = 8
SOME = 16  # answers
SHARE = 0.2
ALONE = ("unshare", "--map-root-user", "--net")  # runs a command where there is no network
REQUEST = Request("session", "en")
REROUTED = "whisperline_transcriber_rerouted_requests_total"


@dataclass(frozen=True)
class Place:
    """A repository that Triton serves, a version that can be published next, and a speech set for its gate."""

    stack: Stack
    repository: Path
    candidate: Path
    speech: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.stack.settings.ports.triton_grpc}"

    @property
    def where(self) -> tuple[str, ...]:
        return ("--repository", str(self.repository), "--triton", self.address)

    @property
    def model_processes(self) -> set[int]:
        """The processes of the versions and of the routing."""
        server = self.stack.pid("triton")
        return {child.pid for child in psutil.Process(server).children()}

    @property
    def rollout(self) -> Rollout:
        return Rollout.from_json((self.repository / "whisper_rollout/rollout.json").read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, demo_clip: Path) -> AsyncIterator[Place]:
    """Triton with version 1 (tiny.en, int8), and the same weights in float32 to follow it."""
    folder = tmp_path_factory.mktemp("rollout")
    repository, candidate = folder / "models", folder / "candidate"
    await models("init", "tiny.en", "--repository", repository, "--cache", CACHE)
    await models("export", "tiny.en", "--output", candidate, "--precision", "float32", "--cache", CACHE)
    settings = local_settings(folder / "state", name="rollout", model_repository=repository)
    async with Stack(settings, ["triton"]) as stack:
        yield Place(stack, repository, candidate, _speech_set(folder / "spoken", demo_clip))


def _speech_set(folder: Path, demo_clip: Path) -> Path:
    """Write a minute of the demo's sentence, and noise in which nothing is said; return the folder."""
    folder.mkdir()
    noise = np.random.default_rng(3).normal(0, 300, 5 * RATE).astype(np.int16)
    soundfile.write(folder / "noise.wav", noise, RATE)
    text = JFK if demo_clip.name == "jfk.wav" else BECKETT
    demo = {"path": str(demo_clip), "language": "en", "text": text, "duration_s": 11.0}
    rows = [
        *({**demo, "id": f"demo {number}"} for number in range(6)),
        {"id": "noise", "path": "noise.wav", "language": "zxx", "text": "", "duration_s": 5.0},
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def clips(demo_clip: Path) -> list[Samples]:
    """Pieces of the demo's speech, 2 to 5 s."""
    demo = soundfile.read(demo_clip, dtype="int16")[0]
    return [demo[at * RATE : (at + 2 + at % 4) * RATE] for at in range(6)]


async def test_versions_come_and_go_without_a_failed_request(
    place: Place, clips: list[Samples], figure: Callable[[str], None]
) -> None:
    """While versions come, take sessions and go under load, every answer comes from the version that was due.

    A loaded version stays in its process while another one is loaded.
    """
    await models("verify", place.candidate, "--set", place.speech, "--against", place.repository)
    old = place.rollout.default
    async with Load(place.address, clips, SESSIONS, WORKERS) as load:

        async def expect(step: str, routing: Rollout) -> None:
            found = await load.next_answers(len(SESSIONS) if routing.canary else SOME)
            assert load.failures == []
            expected = [(answer.session, str(routing.version_of(answer.session))) for answer in found]
            assert [(answer.session, answer.version) for answer in found] == expected
            figure(f"rollout: {step}: {dict(collections.Counter(f'version {answer.version}' for answer in found))}")

        await expect("one version", Rollout(old))
        processes = place.model_processes
        await models("publish", place.candidate, *place.where)
        await expect("published", Rollout(old))
        assert processes < place.model_processes
        new = Repository(place.repository).versions()[-1]
        for step, commands, routing in _steps(str(old), str(new)):
            for command in commands:
                await models(*command, *place.where)
            await expect(step, routing)
        listed = await models("list", *place.where)
        assert all(word in listed for word in ("float32", "passed", "default, 100%", "loaded")), listed
        figure(f"rollout: {len(load.answers)} requests answered, {len(load.failures)} failed")
    assert Repository(place.repository).versions() == [new]


def _steps(old: str, new: str) -> list[tuple[str, list[tuple[str, ...]], Rollout]]:
    """Return each step of a rollout: its name, its commands, and the routing that is in force afterwards."""
    canary = ("canary", "--version", new, "--share", f"{SHARE:.0%}")
    before, after = Rollout(int(old)), Rollout(int(new))
    return [
        ("canary", [canary], before.with_canary(int(new), SHARE)),
        ("canary rolled back", [("rollback",)], before),
        ("promoted", [canary, ("promote",)], after),
        ("rolled back", [("rollback",)], before),
        ("promoted again, the old one removed", [canary, ("promote",), ("remove", old, "--drain-s", "0")], after),
    ]


async def test_a_version_that_does_not_load_goes_out_again(place: Place, clips: list[Samples]) -> None:
    """The publication of a version that does not load fails with a message, and clients do not notice."""
    routing, versions = place.rollout, Repository(place.repository).versions()
    async with Load(place.address, clips, SESSIONS, WORKERS) as load:
        said = await models("publish", _broken(place), "--without-gate", "to fail", *place.where, fails=True)
        assert "cannot load whisper" in said
        assert "is out again" in said
        assert {answer.version for answer in await load.next_answers(SOME)} == {str(routing.default)}
        assert load.failures == []
    assert (place.rollout, Repository(place.repository).versions()) == (routing, versions)


async def test_the_canary_gets_the_share_that_was_asked_for(place: Place, figure: Callable[[str], None]) -> None:
    """Triton routes about a fifth of 1000 sessions to a canary with a share of 20%."""
    repository = Repository(place.repository)
    routing = repository.routing()
    there = place.repository / "whisper" / str(routing.default + 1)  # a version that does not exist gets no sessions
    there.mkdir()
    try:
        repository.route(routing.with_canary(routing.default + 1, SHARE))
        counts = collections.Counter(await versions_of(place.address, [f"caller-{number}" for number in range(1_000)]))
    finally:
        repository.route(routing)
        there.rmdir()
    figure(f"rollout: a canary of {SHARE:.0%} has {counts[routing.default + 1]} of 1000 sessions")
    assert abs(counts[routing.default + 1] / 1_000 - SHARE) < 0.04


def _broken(place: Place) -> Path:
    """Return a version that matches its manifest but cannot be loaded."""
    folder = shutil.copytree(place.candidate, place.candidate.with_name("broken"))
    (folder / "model.py").write_text("raise ValueError('broken on purpose')\n")
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": file_checksums(folder)}).write(folder)
    return folder


async def test_a_request_to_a_version_that_was_removed_is_rerouted(place: Place, clips: list[Samples]) -> None:
    """A client with an outdated routing looks it up again, and its request is answered."""
    rerouted = REGISTRY.get_sample_value(REROUTED) or 0
    async with Triton(place.address, "whisper", rollout_keep_s=3_600) as triton:
        before = (await triton.transcribe(clips[0], REQUEST, Lane.FINAL, 60)).version
        await models("publish", place.candidate, "--without-gate", "another of the same", *place.where)
        after = Repository(place.repository).versions()[-1]
        await models("canary", "--version", after, "--share", "100%", *place.where)
        await models("promote", *place.where)
        await models("remove", before, "--drain-s", "0", *place.where)
        assert (await triton.transcribe(clips[0], REQUEST, Lane.FINAL, 60)).version == str(after)
    assert REGISTRY.get_sample_value(REROUTED) == rerouted + 1


async def test_the_routing_outlives_a_crash_and_a_broken_file(place: Place, clips: list[Samples]) -> None:
    """An unreadable routing file changes nothing, and the routing in the file is in force after a restart."""
    file = place.repository / "whisper_rollout/rollout.json"
    before = place.rollout
    async with Load(place.address, clips, SESSIONS, 2) as load:
        file.write_text("{")
        assert {answer.version for answer in await load.next_answers(5)} == {str(before.default)}
        assert load.failures == []
    assert "is not the state of a rollout" in place.stack.log("triton").read_text()
    file.write_text(before.to_json())
    place.stack.kill("triton")
    await place.stack.wait_healthy("triton")
    async with Triton(place.address, "whisper", rollout_keep_s=0) as triton:
        await eventually(lambda: _serves(triton, clips[0], before.default), f"version {before.default} to serve again")


async def test_a_server_is_told_of_a_version_that_it_does_not_have(place: Place, clips: list[Samples]) -> None:
    """A routing to a version that the server lacks moves no session, not even after a restart."""
    file = place.repository / "whisper_rollout/rollout.json"
    before = place.rollout
    absent = Rollout(before.default + 90)
    async with Load(place.address, clips, SESSIONS, 2) as load:
        file.write_text(absent.to_json())
        assert {answer.version for answer in await load.next_answers(5)} == {str(before.default)}
        assert load.failures == []
    place.stack.kill("triton")
    await place.stack.wait_healthy("triton")
    newest = Repository(place.repository).versions()[-1]
    async with Triton(place.address, "whisper", rollout_keep_s=0) as triton:
        await eventually(lambda: _serves(triton, clips[0], newest), f"version {newest} to serve")
        file.write_text(before.to_json())
        await eventually(lambda: _serves(triton, clips[0], before.default), f"version {before.default} to serve again")
    assert f"version {absent.default} is not in this repository" in place.stack.log("triton").read_text()


async def _serves(triton: Triton, clip: Samples, version: int) -> bool:
    with suppress(TritonError):  # the connection is tried again after a pause
        return (await triton.transcribe(clip, REQUEST, Lane.FINAL, 60)).version == str(version)
    return False


async def test_triton_starts_from_a_copied_repository_without_a_network(place: Place, tmp_path: Path) -> None:
    """Triton serves a copy of the repository in a network namespace without any other host."""
    if not can_be_alone():
        pytest.skip(f"this machine cannot make a network namespace ({' '.join(ALONE)})")
    copied = shutil.copytree(place.repository, tmp_path / "models")
    process = await asyncio.create_subprocess_exec(
        *(*ALONE, sys.executable, str(Path(__file__).with_name("offline.py")), str(copied), str(tmp_path / "state")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert f"version {place.rollout.default} answers" in said


def can_be_alone() -> bool:
    """Return True if this machine can run a process in a network namespace of its own."""
    return shutil.which(ALONE[0]) is not None and not subprocess.run((*ALONE, "true"), check=False).returncode
