"""Errors that may pass are retried, others are raised."""

import asyncio

import pytest
from whisperline_runtime.retry import retrying


async def test_an_error_that_may_pass_is_tried_again() -> None:
    """A retriable error is reported and retried until an attempt succeeds."""
    failures: list[Exception] = []
    attempts = 0
    async for attempt in retrying(ConnectionError, what="writing", longest_s=0.01, on_retry=failures.append):
        with attempt:
            attempts += 1
            if attempts < 4:
                raise ConnectionError(attempts)
    assert attempts == 4
    assert [error.args for error in failures] == [(1,), (2,), (3,)]


async def fail(error: Exception, attempts: list[int]) -> None:
    """Retry work that always fails with `error`, when it is an `OSError`."""
    async for attempt in retrying(lambda raised: isinstance(raised, OSError), what="writing", longest_s=0.01):
        with attempt:
            attempts.append(len(attempts))
            raise error


async def test_any_other_error_is_raised_at_once() -> None:
    """An error that waiting does not fix is raised at once."""
    attempts: list[int] = []
    with pytest.raises(ValueError, match="no use"):
        await fail(ValueError("no use"), attempts)
    assert attempts == [0]


async def test_a_time_out_bounds_it() -> None:
    """Retries go on until the caller's timeout ends them."""
    attempts: list[int] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fail(OSError("away"), attempts), 0.5)
    assert len(attempts) > 1
