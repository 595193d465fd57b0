"""Get answers from the reference implementations, which run in an environment of their own (`oracle.py`)."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from whisperline_models.engine.prompts import SAMPLE_LEN
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import ModelError

from reference_tools import transformers_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from whisperline_models.weights import Checkpoint


class ParityError(ModelError):
    """The export does not agree with the oracle, or the oracle cannot run."""


@dataclass(frozen=True)
class Question:
    """The options with which the reference decodes audio in a window of 30 s.

    `wants` names the parts of the answer:

    - "greedy": tokens by transformers, without timestamps
    - "outputs": encoder state and logits in float64, by transformers
    - "words": word times by openai-whisper
    - "decode": the result of openai-whisper's `decode` with these options
    - "fallback": the judgement of openai-whisper's temperature fallback on greedy decoding with timestamps
    """

    language: str | None
    wants: tuple[str, ...]
    task: str = "transcribe"
    prompt: str = ""
    timestamps: bool = False
    beam_size: int | None = None
    patience: float = 1.0
    length_penalty: float | None = None
    sample_length: int = SAMPLE_LEN


@dataclass(frozen=True)
class Answers:
    """The answers to all questions, in order. `arrays` are named by kind and index, for example `logits_0`."""

    rows: list[dict[str, Any]]
    arrays: dict[str, NDArray[np.float32]]


def ask(
    checkpoint: Checkpoint,
    questions: Sequence[tuple[NDArray[np.float32], Question]],
    python: Path,
    scratch: Path,
) -> Answers:
    """Let the reference answer questions about audio (mono 16 kHz, -1..1) with these weights.

    `python` is the oracle's interpreter. Raises `ParityError` if it cannot run.
    """
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    transformers_folder.save(checkpoint, scratch, tokenizer)
    np.savez(scratch / "openai.npz", **checkpoint.tensors)
    np.savez(scratch / "audio.npz", **{str(index): audio for index, (audio, _) in enumerate(questions)})
    job = {
        "questions": [asdict(question) for _, question in questions],
        "dimensions": vars(checkpoint.dimensions),
        "alignment_heads": checkpoint.alignment_heads,
    }
    rows = _run(python, scratch, job)
    with np.load(scratch / "answers.npz") as arrays:
        return Answers(rows, dict(arrays))


def ask_texts(texts: Sequence[str], python: Path, scratch: Path) -> dict[str, Any]:
    """Return the special tokens of each kind of vocabulary, and these texts encoded as prompts."""
    found: dict[str, Any] = _run(python, scratch, {"texts": texts})
    return found


def _run(python: Path, folder: Path, job: dict[str, Any]) -> Any:
    if not python.is_file():
        raise ParityError(f"{python} is missing: make the oracle's environment with `make .tools/oracle/.installed`")
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("oracle.py")
    done = subprocess.run([python, script, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ParityError(f"the oracle failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads((folder / "answers.json").read_text())
