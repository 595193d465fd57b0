"""The gate of a version: word error rate and silence on a named set of speech, beside the version in service.

Each version runs with its own code in a process of its own, so that an older one is compared as it serves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperline_models.engine.requests import MAX_SAMPLES
from whisperline_models.errors import GateError, SourceError
from whisperline_models.files import sha256_of_file
from whisperline_models.gate.scoring import Score, score
from whisperline_models.gate.speech import Clip, read_manifest
from whisperline_models.manifest import Gate, Manifest, checked
from whisperline_models.rollout.lifecycle import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Advance = Callable[[str, int, int], None]  # what is done, clips done, clips in all

MOST_LOSS = 0.003  # of the word error rate, from the version in service
MOST_WRONG = 0.5  # of the words, where nothing is in service: more is a broken export of any model
LEAST_SPEECH_S = 60.0  # of spoken clips: less tells nothing of 0.3 points
CANDIDATE, IN_SERVICE = "the candidate", "the version in service"
NO_SPEECH = "zxx"
LONGEST_S = 600.0  # of clips without speech; the first 30 s are taken
_TRIAL = Path(__file__).with_name("trial.py")


@dataclass(frozen=True)
class ClipSet:
    """A named set: its spoken clips in the model's languages, and those without speech."""

    name: str
    sha256: str
    spoken: tuple[Clip, ...]
    unspoken: tuple[Clip, ...]

    @classmethod
    def read(cls, path: Path, languages: set[str] | None, most: int) -> ClipSet:
        """Read `path`, a manifest.jsonl or its folder, and take at most `most` of either kind, spread over it.

        `languages` None means every language of the set. Raises `SourceError` where one kind is missing.
        """
        folder = path.parent if path.is_file() else path
        spoken = _spread(read_manifest(folder, languages or _spoken_in(folder)), most)
        if not spoken:
            raise SourceError(
                f"{folder} has no speech of up to 30 s in {', '.join(sorted(languages or {'any language'}))}"
            )
        unspoken = _spread(read_manifest(folder, {NO_SPEECH}, LONGEST_S), most)
        if not unspoken:
            raise SourceError(f"{folder} has no clip without speech (language {NO_SPEECH}): the gate needs some")
        digest = sha256_of_file(folder / "manifest.jsonl")
        return cls(folder.resolve().name, digest, tuple(spoken), tuple(unspoken))

    @property
    def speech_s(self) -> float:
        """How much of spoken clips there is."""
        return sum(clip.duration_s for clip in self.spoken)

    @property
    def audio_s(self) -> float:
        """How much of both there is."""
        return sum(min(clip.duration_s, 30.0) for clip in (*self.spoken, *self.unspoken))


@dataclass(frozen=True)
class Verdict:
    """What the candidate and the version in service made of the same clips."""

    gate: Gate
    candidate: Score
    serving: Score | None


def verify(folder: Path, clips: ClipSet, serving: Path | None, advance: Advance) -> Verdict:
    """Run a version, and the one in service, over the clips; writes the gate into its manifest.

    It passes when its word error rate is at most 0.3 points above that in service (with none there: below 50 %) over
    a minute of speech or more, and it hears nothing in clips without speech. Raises `VersionError` for a folder that
    is not as exported, `GateError` where a version does not run.
    """
    manifest = checked(folder)
    with TemporaryDirectory() as scratch:
        job = _write_job([*clips.spoken, *clips.unspoken], Path(scratch))

        def trial(version: Path, name: str) -> Score:
            return score(clips.spoken, clips.unspoken, _run(version, job, name, advance))

        ours = trial(folder, CANDIDATE)
        served = None if serving is None else (Manifest.read(serving), trial(serving, IN_SERVICE))
    gate = gate_of(manifest, clips, ours, served)
    manifest.model_copy(update={"gate": gate}).write(folder)
    return Verdict(gate, ours, served and served[1])


def gate_of(manifest: Manifest, clips: ClipSet, ours: Score, served: tuple[Manifest, Score] | None) -> Gate:
    """Judge a version by its score, and by that of the version in service where there is one."""
    against, theirs = served or (None, None)
    most = MOST_WRONG if theirs is None else theirs.word_error_rate + MOST_LOSS
    return Gate(
        content=manifest.content,
        passed=ours.word_error_rate <= most and not ours.heard_in_non_speech and clips.speech_s >= LEAST_SPEECH_S,
        verified_at=now(),
        set_name=clips.name,
        set_sha256=clips.sha256,
        clips=len(clips.spoken),
        non_speech_clips=len(clips.unspoken),
        audio_s=round(clips.audio_s, 1),
        speech_s=round(clips.speech_s, 1),
        word_error_rate=ours.word_error_rate,
        most_word_error_rate=most,
        heard_in_non_speech=ours.heard_in_non_speech,
        against=against and against.content,
        against_word_error_rate=theirs and theirs.word_error_rate,
        equal_tokens_clips=theirs and ours.equal_tokens(theirs),
    )


def _spoken_in(folder: Path) -> set[str]:
    path = folder / "manifest.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {str(json.loads(line)["language"]) for line in lines} - {NO_SPEECH}


def _spread(clips: list[Clip], most: int) -> list[Clip]:
    return clips[:: max(1, len(clips) // most)][:most]


def _write_job(clips: Sequence[Clip], scratch: Path) -> Path:
    """What both versions are to transcribe, sorted by length, so that clips of a batch are alike."""
    lines = []
    for number, clip in enumerate(sorted(clips, key=lambda clip: clip.duration_s)):
        audio = scratch / f"{number}.npy"
        np.save(audio, clip.read()[:MAX_SAMPLES])
        options = {"language": None if clip.language == NO_SPEECH else clip.language}
        lines.append(json.dumps({"id": clip.id, "audio": str(audio), "options": options}))
    job = scratch / "job.jsonl"
    job.write_text("\n".join(lines))
    return job


def _run(folder: Path, job: Path, name: str, advance: Advance) -> dict[str, dict[str, Any]]:
    n_clips = len(job.read_text().splitlines())
    answers = {}
    for answer in _answers(folder, job):
        answers[answer["id"]] = answer
        advance(name, len(answers), n_clips)
    return answers


def _answers(folder: Path, job: Path) -> Iterator[dict[str, Any]]:
    """One answer after the other; no compiled module is written into the version's folder (-B)."""
    command = [sys.executable, "-B", "-P", str(_TRIAL), str(folder.resolve()), str(job)]
    with (job.parent / "stderr").open("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            if process.stdout is not None:
                yield from map(json.loads, process.stdout)
        errors.seek(0)
        if process.returncode:
            reason = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise GateError(f"{folder} does not run: {reason}")
