"""Run our Triton for a benchmark: requests over gRPC, the memory of its processes, and its metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
import tritonclient.grpc.aio as triton
from clips import CHECKOUT, Pcm
from whisperline_local import LocalSettings, Stack
from whisperline_local.models import export_model, exported_repository
from whisperline_local.triton import MODEL, model_repository

CACHE = CHECKOUT / ".state" / "cache"
PORT_OFFSET = 22_000
CHANNEL = [("grpc.max_send_message_length", 16 << 20), ("grpc.max_receive_message_length", 16 << 20)]
Options = dict[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A running Triton with the model `whisper`."""

    stack: Stack
    client: triton.InferenceServerClient

    @property
    def version(self) -> Path:
        """The folder of the version that is served."""
        (manifest,) = model_repository(self.stack.settings).glob(f"{MODEL}/*/manifest.json")
        return manifest.parent

    async def ask(self, audio: Pcm, options: Options) -> Answer:
        """Send one request on a stream of its own, and return the answer. Raises `RuntimeError` if it is refused."""
        samples = triton.InferInput("audio", [1, len(audio)], "INT16")
        samples.set_data_from_numpy(audio.reshape(1, -1))
        option = triton.InferInput("options", [1, 1], "BYTES")
        option.set_data_from_numpy(np.array([[json.dumps(options).encode()]], dtype=np.object_))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": MODEL, "inputs": [samples, option]}

        async for result, error in self.client.stream_infer(requests()):
            if error is not None:
                raise RuntimeError(f"a request failed: {error}")
            answer: Answer = json.loads(bytes(result.as_numpy("result").reshape(-1)[0]))
            return answer
        raise RuntimeError("a request got no answer")

    async def ask_all(
        self, clips: Sequence[tuple[str, Pcm]], options: Options, in_flight: int
    ) -> tuple[float, dict[str, Answer]]:
        """Transcribe all clips, `in_flight` at a time. Return the total time in seconds, and the answers."""
        answers: dict[str, Answer] = {}
        waiting = iter(clips)
        began_s = time.perf_counter()

        async def ask_next() -> None:
            for name, audio in waiting:
                answers[name] = await self.ask(audio, options)

        await asyncio.gather(*(ask_next() for _ in range(in_flight)))
        return time.perf_counter() - began_s, answers

    def memory_mb(self, field: str = "VmHWM") -> float:
        """Return the memory of the server and its stub, in 10^6 bytes: `VmHWM` is the peak, `VmRSS` the current one."""
        pid = self.stack.pid("triton")
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(memory_mb(process.pid, field) for process in processes)

    async def metrics(self) -> dict[str, float]:
        """Return the values of Triton's metrics endpoint, by name and labels."""
        port = self.stack.settings.ports.triton_metrics
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}


@asynccontextmanager
async def serving(windows_s: tuple[int, ...] | None = None) -> AsyncIterator[Server]:
    """Run Triton over tiny.en as it is exported by default; `windows_s` replaces the windows of its manifest."""
    with TemporaryDirectory() as scratch:
        own = settings().model_copy(update={"state_dir": Path(scratch) / "state"})
        if windows_s is not None:
            await export_model(own)
            repository = copytree(exported_repository(own), Path(scratch) / "models")
            (manifest,) = repository.glob(f"{MODEL}/*/manifest.json")
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"windows_s": windows_s}))
            own = own.model_copy(update={"model_repository": repository})
        address = f"127.0.0.1:{own.ports.triton_grpc}"
        async with (
            Stack(own, services=["triton"]) as stack,
            triton.InferenceServerClient(address, channel_args=CHANNEL) as client,
        ):
            yield Server(stack, client)


def settings() -> LocalSettings:
    """Return the settings of a benchmark's stack, which shares downloads and models with `make up`."""
    return LocalSettings(cache_dir=CACHE, port_offset=PORT_OFFSET)


def memory_mb(pid: int, field: str = "VmHWM") -> float:
    """Return the memory of one process, in 10^6 bytes."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows[field].split()[0]) * 1024 / 1e6
