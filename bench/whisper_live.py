"""Stream to WhisperLive for a benchmark: its server in a process of its own, with the same weights, and a client.

WhisperLive's own client needs PyAudio and writes to the screen, so this one speaks its protocol: the options in JSON,
then audio as float32 at 16 kHz. The server answers with its last segments, complete ones and one that may still change.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from clips import CHECKOUT, SAMPLE_RATE, Pcm
from peer import weights
from websockets.asyncio.client import ClientConnection, connect

PYTHON = CHECKOUT / ".tools" / "whisper-live" / "bin" / "python"
VERSION = "0.10.0"
PACKET_S = 0.256  # its client's own: 4096 samples
START_S = 60.0  # its server imports torch
QUIET_S = 5.0  # after the last sample, its text stands once nothing has come for this long,
LONGEST_WAIT_S = 15.0  # or after this long: its client's own limit
OPTIONS = {  # its client's defaults
    "task": "transcribe",
    "use_vad": True,
    "send_last_n_segments": 10,
    "no_speech_thresh": 0.45,
    "clip_audio": False,
    "same_output_threshold": 10,
}


@dataclass(frozen=True)
class Shown:
    """What WhisperLive shows from `at_s` on (seconds from the first sample): all text, and the complete part of it."""

    at_s: float
    text: str
    complete_text: str


@dataclass
class Transcript:
    """The segments that a client has seen. A complete segment stays, even if later messages lack it."""

    complete: list[dict[str, Any]] = field(default_factory=list)
    last: str = ""  # the segment that may still change

    def update(self, segments: list[dict[str, Any]]) -> None:
        """Take the segments of one message, as WhisperLive's own client does."""
        self.last = ""
        for segment in segments:
            if not segment["completed"]:
                self.last = segment["text"]
            elif not self.complete or float(segment["start"]) >= float(self.complete[-1]["end"]):
                self.complete.append(segment)

    def shown(self, at_s: float) -> Shown:
        """Return the text as it stands."""
        texts = [segment["text"].strip() for segment in self.complete]
        return Shown(at_s, " ".join([*texts, self.last.strip()]).strip(), " ".join(texts))


@dataclass(frozen=True)
class WhisperLive:
    """A running server."""

    pid: int
    port: int

    async def stream(self, audio: Pcm, language: str = "en") -> list[Shown]:
        """Stream audio (16 kHz) in real time. Return everything that was shown; the last entry is the text at the end.

        The list is empty if nothing was ever shown. Raises `RuntimeError` if the server takes no client.
        """
        shown: list[Shown] = []
        transcript = Transcript()
        async with connect(f"ws://127.0.0.1:{self.port}", max_size=None) as connection:
            await connection.send(json.dumps(OPTIONS | {"uid": str(uuid4()), "language": language, "model": "custom"}))
            while (answer := json.loads(await connection.recv())).get("message") != "SERVER_READY":
                if "status" in answer:
                    raise RuntimeError(f"WhisperLive takes no client: {answer}")
            began_s = time.monotonic()
            ended_s = began_s + len(audio) / SAMPLE_RATE
            sending = asyncio.create_task(_send_in_real_time(connection, audio, began_s))
            message_s = ended_s
            while (limit_s := min(message_s + QUIET_S, ended_s + LONGEST_WAIT_S)) > time.monotonic():
                try:
                    message = await asyncio.wait_for(connection.recv(), limit_s - time.monotonic())
                except TimeoutError:
                    break
                message_s = max(ended_s, time.monotonic())
                segments = json.loads(message).get("segments")
                if segments:
                    transcript.update(segments)
                    shown.append(transcript.shown(time.monotonic() - began_s))
            await sending
            await connection.send(b"END_OF_AUDIO")
        return shown


@asynccontextmanager
async def whisper_live(threads: int) -> AsyncIterator[WhisperLive]:
    """Run the server during the block, with `threads` for its arithmetic."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("whisper_live_server.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        "-P",  # else the script's own folder, where this module is, would hide the package `whisper_live`
        script,
        str(weights()),
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        async with asyncio.timeout(START_S):
            while not await _accepts(port):
                if process.returncode is not None:
                    raise RuntimeError(f"WhisperLive's process has ended with {process.returncode}")
                await asyncio.sleep(0.2)
        yield WhisperLive(process.pid, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _send_in_real_time(connection: ClientConnection, audio: Pcm, began_s: float) -> None:
    samples = audio.astype(np.float32) / 32_768
    step = int(PACKET_S * SAMPLE_RATE)
    for at in range(0, len(samples), step):
        packet = samples[at : at + step]
        spoken_s = began_s + (at + len(packet)) / SAMPLE_RATE  # the time of the packet's last sample
        await asyncio.sleep(max(0.0, spoken_s - time.monotonic()))
        await connection.send(packet.tobytes())


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
