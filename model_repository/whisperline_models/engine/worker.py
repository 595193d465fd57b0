"""The thread that owns an engine, and the limit on the requests that it holds at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .requests import Request
    from .result import Result
    from .timeline import Timeline
    from .transcription import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """A request on its way to the engine's thread."""

    request: Request
    finish: Callable[[Result | Exception], None]
    is_cancelled: Callable[[], bool]
    arrived_s: float
    timeline: Timeline | None


class Worker:
    """Warms up an engine and runs it in a thread of its own until `close`.

    It holds at most `max_requests` of each lane, waiting or in progress. The engine's thread also warms it up, because
    ONNX Runtime keeps captured CUDA graphs by thread. The constructor returns once the engine is warm, and raises the
    error if that fails.
    """

    def __init__(self, engine: Engine, max_requests: int) -> None:
        self._engine, self._max_requests = engine, max_requests
        self._inbox: deque[Submission] = deque()
        self._held: Counter[str] = Counter()  # requests by lane, from submission to answer
        self._changed = threading.Condition()  # guards `_inbox`, `_held` and `_closing`
        self._closing = False
        warm: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(warm,), name="engine")
        self._thread.start()
        warm.result()

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        timeline: Timeline | None = None,
    ) -> None:
        """Queue a request. `finish` is called with its outcome, from the engine's thread.

        A request that is cancelled before its first unit of work ends with `RequestCancelledError`. Raises
        `OverloadedError` if the lane is full or the worker is closing.
        """
        lane, arrived_s = request.lane, time.monotonic()

        def answer(outcome: Result | Exception) -> None:
            with self._changed:
                self._held[lane] -= 1
            try:
                finish(outcome)
            except Exception:  # an answer that cannot be delivered must not end the other requests in the batch
                log.exception("an answer was not delivered")

        with self._changed:
            if self._closing or self._held[lane] >= self._max_requests:
                reason = "is closing" if self._closing else f"holds {self._max_requests} requests of lane {lane}"
                raise OverloadedError(f"this server {reason}: ask again later")
            self._held[lane] += 1
            self._inbox.append(Submission(request, answer, is_cancelled, arrived_s, timeline))
            self._changed.notify()

    def close(self) -> None:
        """Finish the queued requests, then stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self, warm: Future[None]) -> None:
        try:
            self._engine.warm_up()
        except BaseException as error:  # the constructor raises it
            warm.set_exception(error)
            return
        warm.set_result(None)
        idle = True
        while True:
            with self._changed:
                while idle and not self._inbox and not self._closing:
                    self._changed.wait()
                submissions = list(self._inbox)
                self._inbox.clear()
                if idle and not submissions:
                    return  # closing, and every request is answered
            for each in submissions:
                self._engine.submit(
                    each.request, each.finish, each.is_cancelled, arrived_s=each.arrived_s, timeline=each.timeline
                )
            idle = not self._engine.work()
