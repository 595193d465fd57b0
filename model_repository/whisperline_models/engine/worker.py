"""The threads that run an engine, and the limit on the requests that it holds at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING

from .errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .requests import Request
    from .result import Result
    from .timeline import Timeline
    from .transcription import Engine

log = logging.getLogger(__name__)


class Worker:
    """Warms up an engine and runs it, in as many threads as the engine uses, until `close`.

    It holds at most `max_requests` of each lane, waiting or in progress. An engine's thread also warms it up, because
    ONNX Runtime keeps captured CUDA graphs by thread. The constructor returns once the engine is warm, and raises the
    error if that fails.
    """

    def __init__(self, engine: Engine, max_requests: int) -> None:
        self._engine, self._max_requests = engine, max_requests
        self._held: Counter[str] = Counter()  # requests by lane, from submission to answer
        # Guards `_held`, and lets nothing be submitted after `_closing` is set. Reentrant, because the engine may
        # answer a request while it is being submitted.
        self._lock = threading.RLock()
        self._closing = threading.Event()
        warm: Future[None] = Future()
        first = threading.Thread(target=self._warm_up_and_serve, args=(warm,), name="engine-0")
        others = [
            threading.Thread(target=engine.serve, args=(self._closing,), name=f"engine-{number}")
            for number in range(1, engine.n_threads)
        ]
        self._threads = [first, *others]
        first.start()
        warm.result()
        for thread in others:
            thread.start()

    def submit(
        self,
        request: Request,
        finish: Callable[[Result | Exception], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        timeline: Timeline | None = None,
    ) -> None:
        """Queue a request. `finish` is called with its outcome, from one of the engine's threads.

        A request that is cancelled before its first unit of work ends with `RequestCancelledError`. Raises
        `OverloadedError` if the lane is full or the worker is closing.
        """
        lane, arrived_s = request.lane, time.monotonic()

        def answer(outcome: Result | Exception) -> None:
            with self._lock:
                self._held[lane] -= 1
            try:
                finish(outcome)
            except Exception:  # an answer that cannot be delivered must not end the other requests in the batch
                log.exception("an answer was not delivered")

        with self._lock:
            if self._closing.is_set() or self._held[lane] >= self._max_requests:
                full = f"holds {self._max_requests} requests of lane {lane}"
                reason = "is closing" if self._closing.is_set() else full
                raise OverloadedError(f"this server {reason}: ask again later")
            self._held[lane] += 1
            self._engine.submit(request, answer, is_cancelled, arrived_s=arrived_s, timeline=timeline)

    def close(self) -> None:
        """Finish the queued requests, then stop the threads."""
        with self._lock:
            self._closing.set()
        self._engine.wake()
        for thread in self._threads:
            thread.join()

    def _warm_up_and_serve(self, warm: Future[None]) -> None:
        try:
            self._engine.warm_up()
        except BaseException as error:  # the constructor raises it
            warm.set_exception(error)
            return
        warm.set_result(None)
        self._engine.serve(self._closing)
