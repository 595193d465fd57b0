"""Run one version on clips with the code in its own folder. The gate runs this script in one process per version.

`python trial.py FOLDER JOB`: JOB is a file of JSON lines {"id", "audio": an .npy file of 16 kHz PCM, "options"}.
The script prints a JSON line for each clip, in order: {"id", "text", "tokens"}.
"""

import json
import sys
from pathlib import Path

import numpy as np

BATCH = 16


def main(folder: Path, job: Path) -> None:
    """Transcribe every clip of the job."""
    sys.path.insert(0, str(folder))
    from engine.requests import Request  # type: ignore[import-not-found]  # noqa: PLC0415 - the version's own
    from engine.transcription import Engine  # type: ignore[import-not-found]  # noqa: PLC0415

    engine = Engine(folder)
    # in older versions, the tokenizer is called `vocabulary`
    languages = (engine.tokenizer if hasattr(engine, "tokenizer") else engine.vocabulary).languages
    lines = [json.loads(line) for line in job.read_text().splitlines()]
    for at in range(0, len(lines), BATCH):
        batch = lines[at : at + BATCH]
        requests = [
            Request.parse(np.load(line["audio"]), json.dumps(line["options"]).encode(), languages) for line in batch
        ]
        for line, result in zip(batch, engine.transcribe(requests), strict=True):
            answer = {"id": line["id"], "text": result.text, "tokens": list(result.tokens)}
            print(json.dumps(answer), flush=True)  # noqa: T201 - its standard output is its interface


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
