"""Runs one version on clips, with the code that lies in its own folder: a process of its own for each version.

`python trial.py FOLDER JOB`: JOB is a file of JSON lines {"id", "audio": an .npy file of 16 kHz PCM, "options"}.
Writes one JSON line a clip, in order: {"id", "text", "tokens"}.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16


def main(folder: Path, job: Path) -> None:
    """Transcribe every clip of the job."""
    sys.path.insert(0, str(folder))
    from engine.requests import Request  # type: ignore[import-not-found]  # noqa: PLC0415 - the version's own
    from engine.transcription import Engine  # type: ignore[import-not-found]  # noqa: PLC0415

    engine = Engine(folder)
    # Versions of earlier exports call their tokenizer a vocabulary.
    tokenizer = engine.tokenizer if hasattr(engine, "tokenizer") else engine.vocabulary
    lines = [json.loads(line) for line in job.read_text().splitlines()]
    for at in range(0, len(lines), BATCH):
        batch = lines[at : at + BATCH]
        requests = [Request.parse(*_inputs(line), tokenizer.languages) for line in batch]
        for line, result in zip(batch, engine.transcribe(requests), strict=True):
            _answer({"id": line["id"], "text": result.text, "tokens": list(result.tokens)})


def _inputs(line: dict[str, Any]) -> tuple[Any, bytes]:
    return np.load(line["audio"]), json.dumps(line["options"]).encode()


def _answer(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
