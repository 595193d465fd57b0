"""One service kept running: started when what it needs is healthy, watched, restarted, stopped."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from whisperline_local.errors import StepFailed
from whisperline_local.process import destroy_group, spawn, terminate
from whisperline_local.service import Service

START_POLL_S = 0.05
WATCH_POLL_S = 1.0
STABLE_S = 30.0  # a service that was healthy for so long starts its backoff from the beginning
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)  # the last one again and again


class State(StrEnum):
    """Where a service is in its life."""

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


Report = Callable[[str, State, str], None]


class Runner:
    """Supervises one service from `launch` to `stop`; may be launched again after that.

    A first start that fails ends the supervision, and `failure` is set to the reason; later starts are tried again
    for ever, with backoff. At most one process of the service exists at any time.
    """

    def __init__(
        self,
        service: Service,
        log: Path,
        needs: Sequence["Runner"],
        report: Report,
        failure: asyncio.Future[None],
    ) -> None:
        self.service = service
        self.log = log
        self.state = State.STOPPED
        self.restarts = 0
        self._needs = needs
        self._report = report
        self._failure = failure
        self._healthy = asyncio.Event()
        self._was_healthy = False
        self._killed_pid: int | None = None  # of a process that is as good as dead, whatever its last probe says
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process, None when there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def launch(self) -> None:
        """Begin to supervise."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._supervise(), name=f"local {self.service.name}")

    def kill(self) -> None:
        """Kill the process with SIGKILL, as a crash would; it will be restarted. It is not healthy from here on."""
        pid = self.pid
        if pid is None:
            raise StepFailed(self.service.name, "cannot be killed, it is not running")
        self._healthy.clear()
        self._killed_pid = pid
        os.kill(pid, signal.SIGKILL)

    async def release(self) -> None:
        """Supervise the process no more, and leave it as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        """Stop the process, by force when its deadline has passed, and supervise it no more."""
        await self.release()
        self._healthy.clear()
        if self._process is not None and self.state is not State.DONE:
            self._enter(State.STOPPING)
            obeyed = await terminate(self._process, self.service.stop_signal, self.service.stop_limit_s)
            self._process = None
            self._enter(State.STOPPED, "" if obeyed else f"killed after {self.service.stop_limit_s:.0f} s")

    async def wait_healthy(self) -> None:
        """Wait until the service is healthy; raises `StepFailed` when nothing supervises it."""
        if self._task is None:
            raise StepFailed(self.service.name, "has not been started")
        healthy = asyncio.create_task(self.until_healthy())
        try:
            await asyncio.wait({healthy, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            healthy.cancel()
        if not self._healthy.is_set():
            raise StepFailed(self.service.name, "ended before it was healthy", log=self.log)

    async def until_healthy(self) -> None:
        """Wait until the service is healthy, whoever stops and starts it in the meantime."""
        await self._healthy.wait()

    async def _supervise(self) -> None:
        attempt = 0
        try:
            await self._prepare()
            while True:
                healthy_s = await self._live()
                if self.service.once:
                    return
                attempt = 0 if healthy_s > STABLE_S else attempt
                delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                attempt += 1
                self._enter(State.RESTARTING, f"{self._ending()}; again in {delay_s} s")
                self.restarts += 1
                await asyncio.sleep(delay_s)
        except Exception as error:
            self._enter(State.FAILED, str(error).partition("\n")[0])
            if not self._failure.done():
                self._failure.set_exception(error)

    async def _prepare(self) -> None:
        self._enter(State.PREPARING)
        await self.service.prepare(lambda step: self._enter(State.PREPARING, step))

    async def _live(self) -> float:
        """Live one life of the process, from waiting for its needs to its death; return its healthy seconds."""
        self._enter(State.WAITING)
        for need in self._needs:
            await need.until_healthy()
        self._enter(State.STARTING)
        process = self._process = await self._spawn()
        try:
            await self._start(process)
        except StepFailed:
            await destroy_group(process)
            if not self._was_healthy:
                raise
            return 0.0
        if self.service.once:
            return 0.0
        started_s = time.monotonic()
        await self._watch(process)
        self._healthy.clear()
        await destroy_group(process)
        return time.monotonic() - started_s

    async def _spawn(self) -> asyncio.subprocess.Process:
        service = self.service
        return await spawn(
            service.command,
            self.log,
            env=service.env,
            user_id=service.user_id,
            orphan_signal=service.orphan_signal,
        )

    async def _start(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the new process is healthy; raises `StepFailed` when it dies first or takes too long."""
        exited = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._until_ready(process))
        try:
            await asyncio.wait(
                {exited} if self.service.once else {exited, ready},
                timeout=self.service.start_limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            exited.cancel()
            ready.cancel()
        if self.service.once and process.returncode == 0:
            self._set_healthy(State.DONE)
        elif process.returncode is None and ready.done():
            ready.result()
            self._set_healthy(State.HEALTHY)
        else:
            raise self._start_failed(process)

    def _start_failed(self, process: asyncio.subprocess.Process) -> StepFailed:
        code = process.returncode
        reason = f"not ready after {self.service.start_limit_s:.0f} s" if code is None else f"exited with {code}"
        return StepFailed(self.service.name, reason, hint=self.service.hint, log=self.log)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        while not await self.service.ready(process.pid):  # noqa: ASYNC110 - another process sets no event here
            await asyncio.sleep(START_POLL_S)
        await self.service.on_ready()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Return when the process has died, or has not been ready for as long as its service allows."""
        last_ready_s = time.monotonic()
        while not await _exits_within(process, WATCH_POLL_S):
            if await self.service.ready(process.pid):
                last_ready_s = time.monotonic()
                self._set_healthy(State.HEALTHY)
                continue
            self._healthy.clear()
            self._enter(State.UNREADY)
            limit_s = self.service.unready_limit_s
            if limit_s is not None and time.monotonic() - last_ready_s > limit_s:
                return

    def _set_healthy(self, state: State) -> None:
        process = self._process
        if process is None or process.pid == self._killed_pid:
            return
        self._was_healthy = True
        self._healthy.set()
        self._enter(state)

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
        return "was not ready for too long" if code is None else f"exited with {code}"

    def _enter(self, state: State, detail: str = "") -> None:
        if state is not self.state or detail:
            self.state = state
            self._report(self.service.name, state, detail)


async def _exits_within(process: asyncio.subprocess.Process, limit_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), limit_s)
    return process.returncode is not None
