"""Run a process from start to stop: settings, logs, traces, signals, a deadline and the exit status."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import uvloop

from whisperline_runtime import logs, tracing
from whisperline_runtime.errors import FatalError, ProcessError, SettingsError, StartupError
from whisperline_runtime.settings import ProcessSettings

__all__ = ["FatalError", "StartupError", "Stop", "run"]

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=ProcessSettings)

CANCEL_S = 0.5  # time between two cancellations of a `main` that does not end


class Stop:
    """A request to stop the process, set once: by a signal or by the process itself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._interruptible: set[asyncio.Timeout] = set()

    def set(self) -> None:
        """Request the stop."""
        self._event.set()
        for scope in self._interruptible:
            scope.reschedule(asyncio.get_running_loop().time())

    def is_set(self) -> bool:
        """Return True once the stop was requested."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until the stop is requested."""
        await self._event.wait()

    @asynccontextmanager
    async def interrupts(self) -> AsyncIterator[None]:
        """Leave the body, wherever it waits, as soon as the stop is requested.

        The body is cancelled, and execution goes on after the `async with`: check `is_set` there.
        """
        scope = asyncio.timeout(None)  # used only to cancel the body: it has no deadline until the stop
        try:
            async with scope:
                self._interruptible.add(scope)
                if self.is_set():
                    scope.reschedule(asyncio.get_running_loop().time())
                try:
                    yield
                finally:
                    self._interruptible.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise


def run(
    service: str,
    settings_type: type[Settings],
    main: Callable[[Settings, Stop], Awaitable[None]],
    *,
    stop_limit_s: Callable[[Settings], float] = lambda _: 5.0,
) -> int:
    """Run `main` until it returns. Return the exit status.

    `main` gets the settings and a `Stop` that SIGTERM and SIGINT set. It then has `stop_limit_s(settings)` seconds to
    return, and is cancelled after that. `service` names the process in logs and traces. Exit status:

    0   it stopped as asked, or ended by itself
    1   it raised a `StartupError` or `FatalError`, alone or from a task group: one line of the log says which
    2   a setting is wrong: a line for each is printed

    Any other exception is a defect and is raised.
    """
    try:
        settings = settings_type.read()
        logs.configure(service, settings.log_level, settings.log_format)
        with tracing.configured(service):
            uvloop.run(_supervise(settings, main, stop_limit_s(settings)))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except ProcessError as error:
        log.critical("%s", error)
        return 1
    except ExceptionGroup as group:  # from a TaskGroup of `main`; an error in it that is not ours is a defect
        ours, defects = group.split(ProcessError)
        if ours is None or defects is not None:
            raise
        first: Exception = ours
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        log.critical("%s", first)
        return 1
    return 0


async def _supervise(
    settings: Settings, main: Callable[[Settings, Stop], Awaitable[None]], stop_limit_s: float
) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.ensure_future(main(settings, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait({running}, timeout=stop_limit_s)
    if not running.done():
        log.warning("not stopped within %g s: what is not in the log yet, the next process does again", stop_limit_s)
        while not running.done():
            running.cancel()  # repeatedly, because each resource that `main` closes may wait for Kafka
            await asyncio.wait({running}, timeout=CANCEL_S)
        return
    await running
