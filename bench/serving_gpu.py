"""Measure the engine on one NVIDIA GPU, in this process: throughput by batch size, and one short clip alone.

    make bench-serving-gpu                                       # large-v3-turbo's dimensions, scripted weights
    make bench-serving-gpu MODEL=openai/whisper-large-v3-turbo   # trained weights: a folder or a hub id

The table goes to bench/results/serving-gpu.md; where no GPU is found, that is what it says.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from clips import SAMPLE_RATE, Pcm, recorded_clips
from ours import CACHE
from report import heading, percentile, say, table, verdict, write
from scripted import script_of, scripted_checkpoint
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.weights import load_checkpoint

SHAPE, TOKENIZER = "large-v3-turbo", "base"
LONG_S, LONG_TOKENS = 28.0, 100  # read English has 3.6 tokens a second
SHORT_S, SHORT_TOKENS = 5.0, 20
AT_A_TIME = (1, 2, 4, 8, 16, 32, 64)
ROUNDS, N_PROBES = 3, 20
LEAST_THROUGHPUT, MOST_LATENCY_MS = 1000.0, 60.0
OPTIONS = b'{"language": "en", "temperature": 0.0}'
PRECISION: Final = "float16"
PROVIDER = "CUDAExecutionProvider"


def main() -> None:
    """Measure on the GPU, or report that there is none."""
    title = heading("Serving on one GPU", "make bench-serving-gpu")
    gpu = gpu_name()
    if gpu is None:
        lines = ["No NVIDIA GPU was found on this machine: the GPU path was not run, the CPU path alone is shown."]
    elif PROVIDER not in onnxruntime.get_available_providers():
        raise SystemExit(f"{gpu} is here, but this ONNX Runtime has no {PROVIDER}: run `make bench-serving-gpu`")
    else:
        onnxruntime.preload_dlls()
        lines = [f"{gpu}.", *measure(sys.argv[1] if len(sys.argv) > 1 else None)]
    write("serving-gpu", title + lines)


def measure(source: str | None) -> list[str]:
    """Return the table of throughput, and the latency. If `source` is None, use scripted weights and noise."""
    audio = noise() if source is None else speech()
    with engine(source, LONG_TOKENS, max(AT_A_TIME)) as long:
        throughputs = {n: throughput(long, audio, n, is_scripted=source is None) for n in AT_A_TIME}
        memory_mb = _ask_gpu("memory.used")
    with engine(source, SHORT_TOKENS, 1) as short:
        walls_s = [seconds(short, audio, SHORT_S, 1)[0] for _ in range(N_PROBES + 1)][1:]
    latency = verdict(statistics.median(walls_s) * 1000, most=MOST_LATENCY_MS)
    heard = f"noise and scripted texts of {LONG_TOKENS} tokens" if source is None else "English clips behind each other"
    return [
        f"{source or SHAPE}, {PRECISION}; {heard}, {LONG_S:.0f} s a row; GPU memory {memory_mb} MB.",
        "",
        *table(("rows at a time", "audio s per s"), [(n, f"{value:.0f}") for n, value in throughputs.items()]),
        f"- Best throughput: {verdict(max(throughputs.values()), least=LEAST_THROUGHPUT)} audio s per s.",
        f"- One clip of {SHORT_S:.0f} s: p50 {latency} ms, p95 {percentile(walls_s, 95) * 1000:.0f} ms.",
    ]


@contextmanager
def engine(source: str | None, n_tokens: int, max_batch: int) -> Iterator[Engine]:
    """Export the checkpoint and yield a warm engine that serves it. The export is removed afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        say(f"exporting {source or SHAPE}")
        if source is not None:
            checkpoint = load_checkpoint(source, CACHE)
        else:
            checkpoint = scripted_checkpoint(SHAPE, n_tokens, load_checkpoint(TOKENIZER, CACHE).tokenizer_json)
        folder = export_version(checkpoint, Path(scratch) / "1", PRECISION)
        say("loading it")
        loaded = Engine(folder, max_batch=max_batch)
        loaded.warm_up()
        yield loaded


def gpu_name() -> str | None:
    """Return the name of the first GPU with its driver, None if there is no GPU."""
    return _ask_gpu("name,driver_version")


def _ask_gpu(field: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0] if lines else None


def noise() -> Pcm:
    """Return enough audio for every row: loud noise."""
    size = round(max(AT_A_TIME) * LONG_S * SAMPLE_RATE)
    return (np.random.default_rng(0).standard_normal(size, np.float32) * 3000).astype(np.int16)


def speech() -> Pcm:
    """Return enough audio for every row: the recorded clips, repeated."""
    once = np.concatenate([clip.read() for clip in recorded_clips()])
    return np.resize(once, round(max(AT_A_TIME) * LONG_S * SAMPLE_RATE))


def throughput(loaded: Engine, audio: Pcm, n_rows: int, *, is_scripted: bool) -> float:
    """Return the seconds of audio transcribed per second, with `n_rows` rows at a time."""
    say(f"{n_rows} rows at a time")
    walls_s = []
    for _ in range(ROUNDS + 1):
        wall_s, results = seconds(loaded, audio, LONG_S, n_rows)
        walls_s.append(wall_s)
        assert not is_scripted or all(result.tokens == tuple(script_of(LONG_TOKENS)) for result in results)
    return n_rows * LONG_S / statistics.median(walls_s[1:])  # the first is warm-up


def seconds(loaded: Engine, audio: Pcm, length_s: float, n_rows: int) -> tuple[float, list[Result]]:
    """Return the time of `n_rows` requests at once, each over the next `length_s` of the audio, and their results."""
    size = round(length_s * SAMPLE_RATE)
    pieces = [audio[row * size : (row + 1) * size] for row in range(n_rows)]
    requests = [Request.parse(piece, OPTIONS, loaded.tokenizer.languages) for piece in pieces]
    began_s = time.perf_counter()
    results = loaded.transcribe(requests)
    return time.perf_counter() - began_s, results


if __name__ == "__main__":
    main()
