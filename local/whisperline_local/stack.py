"""The whole stack: started in order, supervised, stopped in reverse."""

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Collection, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from whisperline_local.application import application_services
from whisperline_local.errors import AlreadyRunning, LocalError
from whisperline_local.kafka import kafka_service
from whisperline_local.ports import check_ports
from whisperline_local.postgres import database_url, postgres_service
from whisperline_local.runner import Report, Runner, State
from whisperline_local.secrets import load_secrets
from whisperline_local.service import Service, start_order, with_dependencies
from whisperline_local.settings import ENV_PREFIX, LocalSettings
from whisperline_local.triton import triton_service

HEALTHY_LIMIT_S = 60.0
STATUS_FILE = "status.json"


def no_report(_name: str, _state: State, _detail: str) -> None:
    """Report to nobody."""


def all_services(settings: LocalSettings) -> tuple[Service, ...]:
    """Every service of the stack that the settings describe."""
    settings.state.mkdir(parents=True, exist_ok=True)
    secrets = load_secrets(settings.state)
    infrastructure = (kafka_service(settings), postgres_service(settings, secrets.postgres_password))
    services = (*infrastructure, triton_service(settings), *application_services(settings, secrets))
    return tuple(_with_extra_env(service, settings) for service in services)


class Stack:
    """Runs the services between `async with` and its end.

    Entering takes the state folder for itself, checks the ports, and returns when every service is healthy;
    leaving stops them in reverse order, each within its deadline. Raises `LocalError`s on entering, and leaves
    nothing running then. `services` names the services wanted (what they need is added), None means all.
    """

    def __init__(
        self, settings: LocalSettings, services: Collection[str] | None = None, report: Report = no_report
    ) -> None:
        self.settings = settings
        every = all_services(settings)
        self.services = every if services is None else with_dependencies(every, services)
        self._order = start_order(self.services)
        self._report = report
        self._runners: dict[str, Runner] = {}
        self._lock: TextIO | None = None
        self._failure: asyncio.Future[None] | None = None

    @property
    def gateway_urls(self) -> list[str]:
        """The HTTP addresses of the gateways, in the order of their ordinals."""
        ports = (self.settings.port("gateway_port", ordinal) for ordinal in range(self.settings.gateways))
        return [f"http://{self.settings.gateway_host}:{port}" for port in ports]

    @property
    def database_url(self) -> str:
        """The database, as its superuser."""
        return database_url(self.settings, load_secrets(self.settings.state).postgres_password)

    @property
    def kafka_bootstrap(self) -> str:
        """The broker's address."""
        return self.settings.kafka_bootstrap

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None when it does not run."""
        return self._runner(name).pid

    def restarts(self, name: str) -> int:
        """Return how many times a service has been started anew after its process ended unasked."""
        return self._runner(name).restarts

    def state(self, name: str) -> State:
        """Return where a service is in its life."""
        return self._runner(name).state

    def log(self, name: str) -> Path:
        """Return the log file of a service."""
        return self._runner(name).log

    def kill(self, name: str) -> None:
        """Kill a service's process with SIGKILL; the supervisor starts it anew."""
        self._runner(name).kill()

    async def stop(self, name: str) -> None:
        """Stop a service in good order; it stays stopped until `start`."""
        await self._runner(name).stop()

    async def start(self, name: str) -> None:
        """Start a service that was stopped, and wait until it is healthy."""
        self._runner(name).launch()
        await self.wait_healthy(name)

    async def wait_healthy(self, name: str, limit_s: float = HEALTHY_LIMIT_S) -> None:
        """Wait until a service is healthy; raises `TimeoutError` or `StepFailed`."""
        async with asyncio.timeout(limit_s):
            await self._runner(name).wait_healthy()

    async def until_failed(self) -> None:
        """Wait until the supervision of a service fails, and raise why: while all is well, for ever."""
        if self._failure is not None:
            await asyncio.shield(self._failure)

    def hurry(self) -> None:
        """Kill every process at once; for one who does not want to wait for `__aexit__`."""
        for runner in self._runners.values():
            with contextlib.suppress(LocalError, ProcessLookupError):
                runner.kill()

    async def __aenter__(self) -> Self:
        self._lock = take_state_folder(self.settings.state)
        try:
            check_ports(port for service in self.services for port in service.ports)
            self._failure = asyncio.get_running_loop().create_future()
            self._launch(self._failure)
            await _first(self._all_healthy(), self.until_failed())
        except BaseException:
            await self._stop_all()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stop_all()

    def _launch(self, failure: asyncio.Future[None]) -> None:
        by_name = {service.name: service for service in self.services}
        for name in (name for wave in self._order for name in wave):
            service = by_name[name]
            needs = [self._runners[need] for need in service.after]
            self._runners[name] = Runner(service, _fresh_log(self.settings.logs, name), needs, self._note, failure)
        for runner in self._runners.values():
            runner.launch()

    async def _all_healthy(self) -> None:
        for runner in self._runners.values():
            await runner.until_healthy()

    async def _stop_all(self) -> None:
        try:
            # First, so that nothing is restarted because what it needs has gone, or because of `hurry`.
            await asyncio.gather(*(runner.release() for runner in self._runners.values()))
            for wave in reversed(self._order):
                await asyncio.gather(*(self._runners[name].stop() for name in wave if name in self._runners))
        finally:
            if self._failure is not None:
                self._failure.cancel()
            if self._lock is not None:
                self._lock.close()

    def _runner(self, name: str) -> Runner:
        if name not in self._runners:
            raise LocalError(f"no such service: {name}; there are {', '.join(self._runners)}")
        return self._runners[name]

    def _note(self, name: str, state: State, detail: str) -> None:
        self._report(name, state, detail)
        rows = [_status(runner) for runner in self._runners.values()]
        _write(self.settings.state / STATUS_FILE, json.dumps({"supervisor": os.getpid(), "services": rows}))


def _status(runner: Runner) -> dict[str, object]:
    return {
        "name": runner.service.name,
        "state": runner.state,
        "pid": runner.pid,
        "restarts": runner.restarts,
        "ports": [use.port for use in runner.service.ports],
        "log": str(runner.log),
    }


def take_state_folder(state: Path) -> TextIO:
    """Lock a state folder for this process, until the file returned is closed; raises `AlreadyRunning`."""
    state.mkdir(parents=True, exist_ok=True)
    lock = (state / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise AlreadyRunning(
            f"A stack already runs on {state} (see `whisperline-local status`). Stop it, or give this one another "
            f"folder and other ports: {ENV_PREFIX}STATE_DIR and {ENV_PREFIX}PORT_OFFSET."
        ) from error
    return lock


async def _first(*waits: Coroutine[object, object, None]) -> None:
    """Wait until the first of them ends, give up the others, and raise what it raised."""
    tasks = {asyncio.create_task(wait) for wait in waits}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _with_extra_env(service: Service, settings: LocalSettings) -> Service:
    extra = settings.service_env.get(service.name, {})
    return dataclasses.replace(service, env={**service.env, **extra})


def _fresh_log(logs: Path, name: str) -> Path:
    """Return the path of an empty log, with the one of the run before kept beside it."""
    log = logs / f"{name}.log"
    logs.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.rename(logs / f"{name}.previous.log")
    return log


def _write(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.rename(path)
