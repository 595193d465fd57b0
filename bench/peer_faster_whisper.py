"""Run faster-whisper as a process that takes jobs: the peer in `make bench-serving`, in an environment of its own.

    python peer_faster_whisper.py MODEL_FOLDER COMPUTE_TYPE THREADS WORKERS CLIPS.npz

Each line of the standard input is a job in JSON: `mode` ("sequential" or "pipeline"), `clips` (names in CLIPS.npz, the
audio as int16 at 16 kHz), `callers` (threads that ask at the same time), `batch` (windows, of the pipeline), and
`options` of faster-whisper's `transcribe`. Each line of the output is its answer: `wall_s`, and `texts` by clip.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from numpy.typing import NDArray

SAMPLE_RATE = 16000
Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """One line of the input."""

    mode: str
    clips: list[str]
    callers: int
    batch: int
    options: dict[str, Any]


def main() -> None:
    """Load the model, report that it is loaded, and answer jobs until the input ends."""
    folder, compute_type, threads, workers, clips = sys.argv[1:]
    model = WhisperModel(
        folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads), num_workers=int(workers)
    )
    archive = np.load(clips)
    audio = {name: archive[name].astype(np.float32) / 32768 for name in archive.files}
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(model, Job(**json.loads(line)), audio)), flush=True)


def answer(model: WhisperModel, job: Job, audio: dict[str, Audio]) -> dict[str, Any]:
    """Do a job and return its answer. Callers take one clip after the other, or equal shares for the pipeline."""
    began_s = time.perf_counter()
    with ThreadPoolExecutor(job.callers) as callers:
        if job.mode == "sequential":
            found = callers.map(lambda name: (name, transcribe(model, job, audio[name])), job.clips)
            texts = dict(found)
        else:
            parts = [job.clips[first :: job.callers] for first in range(job.callers)]
            batches = callers.map(lambda names: pipeline(model, job, {name: audio[name] for name in names}), parts)
            texts = {name: text for batch in batches for name, text in batch.items()}
    return {"wall_s": time.perf_counter() - began_s, "texts": texts}


def transcribe(model: WhisperModel, job: Job, audio: Audio) -> str:
    """Return the text of one clip."""
    segments, _ = model.transcribe(audio, **{"language": "en"} | job.options)
    return "".join(segment.text for segment in segments).strip()


def pipeline(model: WhisperModel, job: Job, clips: dict[str, Audio]) -> dict[str, str]:
    """Return the texts of all clips. They are concatenated, with their bounds given, so that batches are full."""
    audio, bounds = join(list(clips.values()))
    segments, _ = BatchedInferencePipeline(model).transcribe(
        audio, language="en", clip_timestamps=bounds, batch_size=job.batch, **job.options
    )
    texts = dict.fromkeys(clips, "")
    by_start = dict(zip((bound["start"] for bound in bounds), clips, strict=True))
    for segment in segments:
        texts[by_start[segment.seek // 100]] += segment.text  # `seek` is where its window starts, in 10 ms
    return {name: text.strip() for name, text in texts.items()}


def join(clips: list[Audio]) -> tuple[Audio, list[dict[str, float]]]:
    """Concatenate clips, each from a whole second on. Return the audio, and the bounds of each clip in seconds."""
    parts, bounds, at_s = [], [], 0
    for clip in clips:
        length_s = -(-clip.size // SAMPLE_RATE)
        parts.append(np.pad(clip, (0, length_s * SAMPLE_RATE - clip.size)))
        bounds.append({"start": at_s, "end": at_s + clip.size / SAMPLE_RATE})
        at_s += length_s
    return np.concatenate(parts), bounds


if __name__ == "__main__":
    main()
