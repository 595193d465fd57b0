"""Retry for as long as it takes, with one schedule of delays for every process."""

import logging
from collections.abc import AsyncIterable, Callable

import stamina
from stamina.instrumentation import set_on_retry_hooks

log = logging.getLogger(__name__)

INITIAL_S = 0.1
LONGEST_S = 2.0  # short enough that a broker or database is noticed soon after it is back

RetryOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


def retrying(
    on: RetryOn, what: str, *, longest_s: float = LONGEST_S, on_retry: Callable[[Exception], None] | None = None
) -> AsyncIterable[stamina.Attempt]:
    """Return an iterator of attempts that ends when one succeeds; each is a context manager for the work that may fail.

    Waits 0.1 s, then twice as long each time, at most `longest_s`, with jitter; never gives up (bound it with
    `asyncio.timeout`). Each failure is logged as "`what` failed" and handed to `on_retry`. Errors that `on` does not
    name are raised at once.

        async for attempt in retrying(StoreUnavailableError, what="writing to the database"):
            with attempt:
                await store.write(events)
    """

    def may_retry(error: Exception) -> bool:
        wanted = on(error) if not isinstance(on, (type, tuple)) else isinstance(error, on)
        if wanted:
            log.warning("%s failed, trying again: %r", what, error)
            if on_retry is not None:
                on_retry(error)
        return wanted

    return stamina.retry_context(
        on=may_retry, attempts=None, timeout=None, wait_initial=INITIAL_S, wait_max=longest_s, wait_jitter=INITIAL_S
    )


set_on_retry_hooks(())  # stamina's own log line repeats the arguments of the function
