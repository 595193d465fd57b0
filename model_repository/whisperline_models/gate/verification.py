"""Run a candidate and the version in service on the same clips, and judge the candidate by its transcripts.

Each version runs with its own code, in a process of its own, so that it behaves as it does in service.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from whisperline_models.engine.requests import MAX_SAMPLES
from whisperline_models.errors import GateError
from whisperline_models.gate.clips import NO_SPEECH
from whisperline_models.gate.scoring import Answer, Score, score
from whisperline_models.manifest import Gate, Manifest, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperline_models.gate.clips import ClipSet

    Progress = Callable[[str, int, int], None]  # the version that runs, clips done, clips in all

MAX_ADDED_ERROR_RATE = 0.003  # above the word error rate of the version in service
MAX_FIRST_ERROR_RATE = 0.5  # if nothing is in service: the export of any model with more errors must be broken
MIN_SPEECH_S = 60.0  # with less speech, a difference of 0.3 points is not measurable
CANDIDATE, IN_SERVICE = "the candidate", "the version in service"
_TRIAL = Path(__file__).with_name("trial.py")


@dataclass(frozen=True)
class Verification:
    """The scores of the candidate and of the version in service on the same clips, and the resulting gate."""

    gate: Gate
    candidate: Score
    serving: Score | None


def verify(folder: Path, clips: ClipSet, serving: Path | None, progress: Progress) -> Verification:
    """Run a version and the one in service on the clips, and write the gate into the version's manifest.

    Raises `VersionError` if the folder has changed since its export, and `GateError` if a version does not run.
    """
    manifest = Manifest.read_checked(folder)
    with TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.jsonl"
        lines = []
        # sorted by length, so that the clips in a batch are about equally long
        for number, clip in enumerate(sorted([*clips.spoken, *clips.unspoken], key=lambda clip: clip.duration_s)):
            audio = Path(scratch) / f"{number}.npy"
            np.save(audio, clip.read()[:MAX_SAMPLES])
            options = {"language": None if clip.language == NO_SPEECH else clip.language}
            lines.append(json.dumps({"id": clip.id, "audio": str(audio), "options": options}))
        job.write_text("\n".join(lines))

        # one after the other: in parallel, they would share the CPU and the memory
        candidate = score(clips.spoken, clips.unspoken, _run(folder, job, CANDIDATE, progress))
        served: tuple[Manifest, Score] | None = None
        if serving is not None:
            answers = _run(serving, job, IN_SERVICE, progress)
            served = Manifest.read(serving), score(clips.spoken, clips.unspoken, answers)
    gate = judge(manifest, clips, candidate, served)
    manifest.model_copy(update={"gate": gate}).write(folder)
    return Verification(gate, candidate, None if served is None else served[1])


def judge(manifest: Manifest, clips: ClipSet, candidate: Score, served: tuple[Manifest, Score] | None) -> Gate:
    """Judge a version by its score, and by the score of the version in service if there is one.

    It passes if its word error rate, over at least a minute of speech, is at most 0.3 points above that of the version
    in service (at most 50 % if there is none), and if it transcribes nothing in clips without speech.
    """
    most = MAX_FIRST_ERROR_RATE if served is None else served[1].word_error_rate + MAX_ADDED_ERROR_RATE
    accurate = candidate.word_error_rate <= most and clips.speech_s >= MIN_SPEECH_S
    gate = Gate(
        content=manifest.content,
        passed=accurate and not candidate.heard_in_non_speech,
        verified_at=utc_now(),
        set_name=clips.name,
        set_sha256=clips.sha256,
        clips=len(clips.spoken),
        non_speech_clips=len(clips.unspoken),
        audio_s=round(clips.audio_s, 1),
        speech_s=round(clips.speech_s, 1),
        word_error_rate=candidate.word_error_rate,
        most_word_error_rate=most,
        heard_in_non_speech=candidate.heard_in_non_speech,
    )
    if served is None:
        return gate
    serving, theirs = served
    comparison = {
        "against": serving.content,
        "against_word_error_rate": theirs.word_error_rate,
        "equal_tokens_clips": candidate.equal_tokens(theirs),
    }
    return gate.model_copy(update=comparison)


def _run(folder: Path, job: Path, name: str, progress: Progress) -> dict[str, Answer]:
    """Run a version over a job of `trial.py`. Raises `GateError` if it does not run."""
    n_clips = len(job.read_text().splitlines())
    answers: dict[str, Answer] = {}
    # -B, because a compiled module written to the folder would make it another version
    command = [sys.executable, "-B", "-P", str(_TRIAL), str(folder.resolve()), str(job)]
    # stderr goes to a file: a version that fills a pipe, which nothing reads meanwhile, would block for ever
    with (job.parent / "stderr").open("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
            for line in process.stdout:
                fields = json.loads(line)
                answers[fields["id"]] = Answer(str(fields["text"]), tuple(fields["tokens"]))
                progress(name, len(answers), n_clips)
        errors.seek(0)
        if process.returncode:
            reason = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise GateError(f"{folder} does not run: {reason}")
    return answers
