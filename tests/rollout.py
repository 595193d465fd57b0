"""Load Triton with requests while versions come and go, and run the commands that move versions."""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import tritonclient.grpc.aio as triton
from streams import Samples
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError

KEEP_S = 0.5  # time for which a client caches the routing
DEADLINE_S = 60.0
BATCH = 200  # sessions in one request to the routing
LANES = tuple(Lane)


@dataclass(frozen=True)
class Answer:
    """An answered request: the version that answered, and the time at which the request was sent."""

    session: str
    version: str
    began_s: float


class Load:
    """A load of `workers` concurrent requests, of all lanes, for each session in turn."""

    def __init__(self, address: str, clips: Sequence[Samples], sessions: Sequence[str], workers: int) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._triton = Triton(address, "whisper", KEEP_S)
        self._turns = itertools.count()
        self._clips, self._sessions, self._workers = clips, sessions, workers
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self._triton.__aenter__()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._triton.__aexit__(kind, error, trace)

    async def next_answers(self, n: int) -> list[Answer]:
        """Return at least `n` answers to requests that were sent once every client knew the current routing."""
        known_s = time.monotonic() + KEEP_S

        def since() -> list[Answer]:
            return [answer for answer in self.answers if answer.began_s > known_s]

        async with self._answered:
            await self._answered.wait_for(lambda: len(since()) >= n or bool(self.failures))
        return since()

    async def _work(self) -> None:
        while True:
            turn = next(self._turns)
            session, clip = self._sessions[turn % len(self._sessions)], self._clips[turn % len(self._clips)]
            lane = LANES[turn % len(LANES)]
            request = Request(session, "en")
            began_s = time.monotonic()
            try:
                transcript = await self._triton.transcribe(clip, request, lane, DEADLINE_S)
                self.answers.append(Answer(session, transcript.version, began_s))
            except TritonError as error:
                self.failures.append(f"{session}, {lane.name}: {error}")  # the others go on
                return
            finally:
                async with self._answered:
                    self._answered.notify_all()


async def models(*arguments: str | int | Path, fails: bool = False) -> str:
    """Run a command of `whisperline models` and return its output; with `fails`, it must exit with 1."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "whisperline_models", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200"},
    )
    said = (await process.communicate())[0].decode()
    assert (process.returncode == 1) == fails, said
    return said


async def versions_of(address: str, sessions: Sequence[str]) -> list[int]:
    """Return the versions that serve these sessions, as Triton reports them."""
    async with triton.InferenceServerClient(address) as client:
        results = []
        for at in range(0, len(sessions), BATCH):
            asked = sessions[at : at + BATCH]
            tensor = triton.InferInput("session", [len(asked), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[session.encode()] for session in asked], np.object_))
            results.append(await client.infer("whisper_rollout", [tensor]))
    return [int(version) for result in results for version in result.as_numpy("version").reshape(-1)]
