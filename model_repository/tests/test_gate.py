"""The gate passes a version that transcribes speech well and nothing else, and refuses every other one."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner
from whisperline_models.cli import app
from whisperline_models.errors import GateError, SourceError
from whisperline_models.export import export_version
from whisperline_models.gate import Clip, ClipSet, Score
from whisperline_models.gate.verification import MAX_ADDED_ERROR_RATE, MAX_FIRST_ERROR_RATE, MIN_SPEECH_S, judge
from whisperline_models.manifest import Manifest
from whisperline_models.rollout import Repository, publish
from whisperline_models.weights import Checkpoint


def _score(rate: float, heard: tuple[str, ...] = ()) -> Score:
    return Score(rate, {"en": rate}, heard, {"clip": (1, 2)})


@given(ours=st.floats(0, 2), theirs=st.none() | st.floats(0, 2), heard=st.booleans(), speech_s=st.floats(0, 120))
def test_the_gate_holds_the_error_rate_and_the_silence(
    exported: Path, ours: float, theirs: float | None, heard: bool, speech_s: float
) -> None:
    """A version passes only if its error rate over at least a minute is low enough, and silence gives no text."""
    spoken = Clip("clip", Path("clip.wav"), "en", "a", speech_s)
    manifest, clips = Manifest.read(exported), ClipSet("set", "0", (spoken,), ())
    said = ("noise: Thank you.",) if heard else ()
    served = None if theirs is None else (manifest, _score(theirs))
    gate = judge(manifest, clips, _score(ours, said), served)
    most = MAX_FIRST_ERROR_RATE if theirs is None else theirs + MAX_ADDED_ERROR_RATE
    assert gate.passed == (ours <= most and not heard and speech_s >= MIN_SPEECH_S)
    assert gate.content == manifest.content


def test_a_version_that_errs_fails_its_gate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """`verify` prints a table for a version that misses the words of a clip and fails, and `publish` refuses it."""
    folder = export_version(checkpoint, tmp_path / "staged", "int8")
    for name in ("words", "none"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000, np.int16), 16_000)
    rows = [
        {"id": "words", "path": "words.wav", "language": "en", "text": "these words are missing", "duration_s": 1},
        {"id": "none", "path": "none.wav", "language": "zxx", "text": "", "duration_s": 1},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = CliRunner().invoke(app, ["verify", str(folder), "--set", str(tmp_path / "manifest.jsonl")])
    assert result.exit_code == 1
    assert "100.00%" in result.output
    assert "does not pass" in result.output
    with pytest.raises(GateError, match="has failed its gate"):
        publish(folder, Repository(tmp_path / "models"), (), None, print)


def test_a_set_must_hold_both_kinds(tmp_path: Path) -> None:
    """A set without clips with speech, or without clips without speech, is refused."""
    rows = [{"id": "a", "path": "a.wav", "language": "en", "text": "a word", "duration_s": 1}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SourceError, match="has no clip without speech"):
        ClipSet.read(tmp_path, None, 10)
    with pytest.raises(SourceError, match="has no speech of up to 30 s in fr"):
        ClipSet.read(tmp_path, {"fr"}, 10)
