"""Decode in this process: the engine without Triton, for many recordings at once, with a cache of answers on disk.

A *task* is a generator that yields `Ask`s and is sent their answers, so that code which needs one answer before it
asks again still fills the engine's batch together with others. An answer depends on its audio and options alone.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import whisperline_models
from clips import Pcm
from ours import CACHE
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.settings import ServingSettings
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.weights import load_checkpoint

T = TypeVar("T")
Answer = dict[str, Any]
BATCH = 16


@dataclass(frozen=True)
class Ask:
    """One request to the engine: samples at 16 kHz, and the options of Triton's interface."""

    audio: Pcm
    options: dict[str, Any]


Task = Generator[Ask, Answer, T]


class InProcess:
    """The engine with the default export of `model`, and the answers that it gave before.

    The export and the answers lie in the checkout's cache. They are kept by the digest of the exporter's and the
    engine's source, so that a change of either makes them anew.
    """

    def __init__(self, model: str, threads: int) -> None:
        folder = CACHE / "bench-text" / f"{model}-{_source_digest()}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            export_version(load_checkpoint(model, CACHE), folder, "int8")
        beam_sizes = ServingSettings().beam_sizes
        self._engine = Engine(folder, max_batch=BATCH, threads=threads, beam_sizes=beam_sizes)
        self.tokenizer = self._engine.tokenizer
        self._known = sqlite3.connect(folder.with_name(f"{folder.name}.sqlite"), timeout=60, isolation_level=None)
        self._known.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT)")

    def run(self, tasks: Iterable[Task[T]]) -> list[T]:
        """Run the tasks, BATCH at a time, and return their results in order."""
        results: dict[int, T] = {}
        waiting = enumerate(tasks)
        n_running = 0
        errors: list[Exception] = []

        def advance(index: int, task: Task[T], answer: Answer | None) -> bool:
            """Send known answers to a task until it needs the engine. Return False if it is over."""
            try:
                ask = next(task) if answer is None else task.send(answer)
                while (answer := self._recall(ask)) is not None:
                    ask = task.send(answer)
            except StopIteration as stop:
                results[index] = stop.value
                return False
            self._submit(ask, lambda outcome: finish(index, task, ask, outcome))
            return True

        def finish(index: int, task: Task[T], ask: Ask, outcome: Result | Exception) -> None:
            nonlocal n_running
            if isinstance(outcome, Exception):
                errors.append(outcome)
                return
            answer: Answer = json.loads(outcome.to_json())
            self._remember(ask, answer)
            n_running -= not advance(index, task, answer)

        while True:
            while n_running < BATCH and (following := next(waiting, None)) is not None:
                n_running += advance(*following, None)
            if errors:
                raise errors[0]
            if not self._engine.work() and n_running == 0:
                break
        return [results[index] for index in sorted(results)]

    def _submit(self, ask: Ask, finish: Callable[[Result | Exception], None]) -> None:
        request = Request.parse(ask.audio, json.dumps(ask.options).encode(), self.tokenizer.languages)
        self._engine.submit(request, finish)

    def _recall(self, ask: Ask) -> Answer | None:
        row = self._known.execute("SELECT answer FROM answers WHERE key = ?", (_key(ask),)).fetchone()
        return None if row is None else json.loads(row[0])

    def _remember(self, ask: Ask, answer: Answer) -> None:
        self._known.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (_key(ask), json.dumps(answer)))


def _source_digest() -> str:
    """Return a digest of the exporter's and the engine's source."""
    digest = hashlib.sha256()
    for path in sorted(Path(whisperline_models.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _key(ask: Ask) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(ask.audio).tobytes())
    digest.update(json.dumps(ask.options, sort_keys=True).encode())
    return digest.hexdigest()
