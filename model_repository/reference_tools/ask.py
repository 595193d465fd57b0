"""Asks the reference implementations, which run in an environment of their own (`oracle.py`)."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from whisperline_models.engine.prompts import SAMPLE_LEN
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import ParityError
from whisperline_models.weights import huggingface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from whisperline_models.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Question:
    """What the reference is to decode, over 30 s, and how.

    `wants` are parts of the answer: "greedy" (tokens by transformers, without timestamps), "outputs" (encoder and
    decoder in float64), "words" (times by openai-whisper), "decode" (its decoding with these options), "ladder" (its
    judgement of greedy decoding with timestamps).
    """

    language: str | None
    wants: tuple[str, ...]
    task: str = "transcribe"
    prompt: str = ""
    timestamps: bool = False
    sample_length: int = SAMPLE_LEN


@dataclass(frozen=True)
class Answers:
    """One answer a question, in order; `arrays` are named by kind and question: `mel_0`, `hidden_0`, `logits_0`."""

    rows: list[dict[str, Any]]
    arrays: dict[str, NDArray[np.float32]]


def ask(
    checkpoint: Checkpoint,
    questions: Sequence[tuple[NDArray[np.float32], Question]],
    python: Path,
    scratch: Path,
) -> Answers:
    """Ask about audio (mono 16 kHz, -1..1) with these weights; `python` is the oracle's interpreter.

    Raises `ParityError` where it cannot run.
    """
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    huggingface.save(checkpoint, scratch, tokenizer)
    np.savez(scratch / "openai.npz", **checkpoint.tensors)
    np.savez(scratch / "audio.npz", **{str(index): audio for index, (audio, _) in enumerate(questions)})
    job = {
        "questions": [asdict(question) for _, question in questions],
        "dimensions": vars(checkpoint.dimensions),
        "alignment_heads": checkpoint.alignment_heads,
    }
    (scratch / "job.json").write_text(json.dumps(job))
    _run(python, scratch)
    with np.load(scratch / "answers.npz") as arrays:
        return Answers(json.loads((scratch / "answers.json").read_text()), dict(arrays))


def ask_texts(texts: Sequence[str], python: Path, scratch: Path) -> dict[str, Any]:
    """The special tokens of each kind of vocabulary, and how it encodes these texts as prompts."""
    (scratch / "job.json").write_text(json.dumps({"texts": texts}))
    _run(python, scratch)
    found: dict[str, Any] = json.loads((scratch / "answers.json").read_text())
    return found


def _run(python: Path, folder: Path) -> None:
    if not python.is_file():
        raise ParityError(f"{python} is not there: make the oracle's environment with `make .tools/oracle/.installed`")
    script = Path(__file__).with_name("oracle.py")
    done = subprocess.run([python, script, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ParityError(f"the oracle failed with {done.returncode}:\n{done.stderr[-2000:]}")
