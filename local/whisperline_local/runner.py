"""Supervise one service: start it when what it needs is healthy, watch it, restart it, stop it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from whisperline_local.errors import StepFailed, first_error_of_tasks
from whisperline_local.process import destroy_group, spawn, terminate
from whisperline_local.service import Service

START_POLL_S = 0.05
WATCH_POLL_S = 1.0
STABLE_S = 30.0  # after a process was healthy for this long, the backoff starts again from the beginning
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)  # the last one is repeated


class State(StrEnum):
    """The states of a service."""

    PREPARING = "preparing"
    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNREADY = "unready"
    DONE = "done"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


Report = Callable[[str, State, str], None]  # called with a service's name, its new state, and a detail


class Runner:
    """Supervises one service from `launch` to `stop`, after which it may be launched again.

    A first start that fails ends the supervision, and `error` says why. A later start that fails is tried again for
    ever, with backoff. At most one process of the service exists at any time.
    """

    def __init__(self, service: Service, log: Path, needs: Sequence["Runner"], report: Report) -> None:
        self.service = service
        self.log = log
        self.state = State.STOPPED
        self.restarts = 0
        self.healthy = False
        self.error: Exception | None = None
        self._needs = needs
        self._report = report
        self._changed = asyncio.Event()  # set at the next change of state, then replaced by a new event
        self._was_healthy = False
        self._killed_pid: int | None = None  # set by `kill`: this process may still answer one last probe
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process; None if there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def supervised(self) -> bool:
        """True from `launch` until the supervision ends."""
        return self._supervision is not None and not self._supervision.done()

    def launch(self) -> None:
        """Start the supervision, unless it is running."""
        if not self.supervised:
            self.error = None
            self._supervision = asyncio.create_task(self._supervise(), name=f"local {self.service.name}")

    def kill(self) -> None:
        """Kill the process with SIGKILL, as a crash would. It counts as unhealthy at once, and is restarted."""
        pid = self.pid
        if pid is None:
            raise StepFailed(self.service.name, "cannot be killed, it is not running")
        self.healthy = False
        self._killed_pid = pid
        os.kill(pid, signal.SIGKILL)

    async def release(self) -> None:
        """End the supervision, and leave the process as it is."""
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
            self._wake_waiters()

    async def stop(self) -> None:
        """End the supervision and stop the process, by force after its deadline."""
        await self.release()  # first, or the supervision would restart what is stopped here
        self.healthy = False
        if self._process is not None and self.state is not State.DONE:
            self._enter(State.STOPPING)
            obeyed = await terminate(self._process, self.service.stop_signal, self.service.stop_limit_s)
            self._process = None
            self._enter(State.STOPPED, "" if obeyed else f"killed after {self.service.stop_limit_s:.0f} s")

    async def wait_healthy(self) -> None:
        """Wait until the service is healthy. Raises the cause if its supervision has ended."""
        if self._supervision is None:
            raise StepFailed(self.service.name, "has not been started")
        await self._until(lambda: self.healthy or not self.supervised or self.error is not None)
        if not self.healthy:
            raise self.error or StepFailed(self.service.name, "ended before it was healthy", log=self.log)

    async def until_healthy(self) -> None:
        """Wait until the service is healthy, even if it is stopped and started in the meantime."""
        await self._until(lambda: self.healthy)

    async def until_failed(self) -> None:
        """Wait until the supervision fails, and raise its error. This never returns normally."""
        await self._until(lambda: self.error is not None)
        if self.error is not None:
            raise self.error

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    async def _supervise(self) -> None:
        attempt = 0
        try:
            self._enter(State.PREPARING)
            await self.service.prepare(lambda step: self._enter(State.PREPARING, step))
            while True:
                healthy_s = await self._run_process()
                if self.service.once:
                    return
                attempt = 0 if healthy_s > STABLE_S else attempt
                delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                attempt += 1
                code = self._process.returncode if self._process is not None else None
                ending = "was not ready for too long" if code is None else f"exited with {code}"
                self._enter(State.RESTARTING, f"{ending}; again in {delay_s} s")
                self.restarts += 1
                await asyncio.sleep(delay_s)
        except Exception as error:  # of any kind: `wait_healthy` must raise it for every caller that waits
            self.error = error
            self._enter(State.FAILED, str(error).partition("\n")[0])

    async def _run_process(self) -> float:
        """Wait for the services that this one needs, run one process until it dies, and return its uptime in seconds.

        Raises `StepFailed` if it does not become healthy and no process of this service ever was.
        """
        service = self.service
        self._enter(State.WAITING)
        for need in self._needs:
            # Not `wait_healthy`, which raises when a needed service is stopped: it may be started again.
            await need.until_healthy()
        self._enter(State.STARTING)
        process = self._process = await spawn(
            service.command,
            self.log,
            env=service.env,
            user_id=service.user_id,
            orphan_signal=service.orphan_signal,
        )
        try:
            await self._until_started(process)
        except StepFailed:
            await destroy_group(process)
            # A failed first start is a mistake that a person must fix; a later failure may be temporary.
            if not self._was_healthy:
                raise
            return 0.0
        if service.once:
            return 0.0
        started_s = time.monotonic()
        await self._until_dead_or_unready(process)
        self.healthy = False
        await destroy_group(process)  # children may survive their parent, and hold its ports
        return time.monotonic() - started_s

    async def _until_started(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the new process is healthy. Raises `StepFailed` if it dies first or takes too long."""
        service, started = self.service, False

        async def until_dead() -> None:
            await process.wait()
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())  # a dead process will not become ready

        with contextlib.suppress(TimeoutError), first_error_of_tasks():
            async with asyncio.timeout(service.start_limit_s) as limit, asyncio.TaskGroup() as tasks:
                death = tasks.create_task(until_dead())
                if service.once:
                    await death
                else:
                    while not await service.ready(process.pid):  # noqa: ASYNC110 - another process sets no event here
                        await asyncio.sleep(START_POLL_S)
                    await service.on_ready()
                    started = True
                    death.cancel()
        code = process.returncode
        if service.once and code == 0:
            self._enter_healthy(process, State.DONE)
        elif started and code is None:
            self._enter_healthy(process, State.HEALTHY)
        else:
            reason = f"not ready after {service.start_limit_s:.0f} s" if code is None else f"exited with {code}"
            raise StepFailed(service.name, reason, hint=service.hint, log=self.log)

    async def _until_dead_or_unready(self, process: asyncio.subprocess.Process) -> None:
        """Return when the process has died, or has not been ready for as long as its service allows."""
        limit_s = self.service.unready_limit_s
        last_ready_s = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_POLL_S):
                    await process.wait()
            if process.returncode is not None:
                return
            # Do not kill a process for a moment of unreadiness: it may wait for another one that is being restarted.
            if await self.service.ready(process.pid):
                last_ready_s = time.monotonic()
                self._enter_healthy(process, State.HEALTHY)
                continue
            self.healthy = False
            self._enter(State.UNREADY)
            if limit_s is not None and time.monotonic() - last_ready_s > limit_s:
                return

    def _enter_healthy(self, process: asyncio.subprocess.Process, state: State) -> None:
        if process.pid != self._killed_pid:
            self._was_healthy = self.healthy = True
            self._enter(state)
            self._wake_waiters()

    def _enter(self, state: State, detail: str = "") -> None:
        if state is not self.state or detail:
            self.state = state
            self._report(self.service.name, state, detail)
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        # Use a new event for each change, so that a task that waits again waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
