"""The thread that owns an engine, and the bound on what may be asked of it at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .requests import Request, Result
    from .transcription import Engine

    Finish = Callable[[Result | Exception], None]

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """A lane has all the requests that it may hold: nothing was queued, ask again later."""


class Worker:
    """Warms an engine up and runs it until it is closed. At most `max_requests` of each lane wait or are under way.

    The engine is warmed up by the thread that works it, since ONNX Runtime keeps captured CUDA graphs by thread;
    the constructor returns when that is done, and raises what went wrong.
    """

    def __init__(self, engine: Engine, max_requests: int) -> None:
        self._engine, self._max_requests = engine, max_requests
        self._inbox: deque[tuple[Request, Finish, Callable[[], bool], float]] = deque()
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closing = False
        warm: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(warm,), name="engine")
        self._thread.start()
        warm.result()

    def submit(self, request: Request, finish: Finish, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Queue a request, whose `finish` is called from the engine's thread.

        A request that is cancelled before its turn ends with `RequestCancelled`. Raises `Overloaded`.
        """
        lane, now_s = request.lane, time.monotonic()
        with self._changed:
            if self._closing or self._held[lane] >= self._max_requests:
                reason = "is closing" if self._closing else f"holds {self._max_requests} requests of lane {lane}"
                raise Overloaded(f"this server {reason}: ask again later")
            self._held[lane] += 1
            self._inbox.append((request, lambda outcome: self._finished(lane, finish, outcome), is_cancelled, now_s))
            self._changed.notify()

    def close(self) -> None:
        """Finish what was queued, then stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _finished(self, lane: str, finish: Finish, outcome: Result | Exception) -> None:
        with self._changed:
            self._held[lane] -= 1
        try:
            finish(outcome)
        except Exception:  # an answer that cannot be delivered is nobody else's matter
            log.exception("an answer was not delivered")

    def _run(self, warm: Future[None]) -> None:
        try:
            self._engine.warm_up()
        except BaseException as error:  # it is the constructor's to raise
            warm.set_exception(error)
            return
        warm.set_result(None)
        busy = False
        while self._take(wait=not busy):
            busy = self._engine.work()

    def _take(self, *, wait: bool) -> bool:
        """Give the engine what has come; with `wait`, only once something has. False when closed and idle."""
        with self._changed:
            while wait and not self._inbox and not self._closing:
                self._changed.wait()
            taken = list(self._inbox)
            self._inbox.clear()
            over = wait and self._closing and not taken
        for request, finish, is_cancelled, arrived_s in taken:
            self._engine.submit(request, finish, is_cancelled, arrived_s)
        return not over
