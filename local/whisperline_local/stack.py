"""Start the whole stack in order, supervise it, and stop it in reverse."""

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from whisperline_local.application import application_services
from whisperline_local.errors import LocalError, first_error_of_tasks
from whisperline_local.kafka import kafka_service
from whisperline_local.ports import check_ports
from whisperline_local.postgres import database_url, postgres_service
from whisperline_local.runner import Report, Runner, State
from whisperline_local.service import Service, start_order, with_dependencies
from whisperline_local.settings import LocalSettings
from whisperline_local.state_folder import STATUS_FILE, fresh_log, load_secrets, take_state_folder, write_whole
from whisperline_local.triton import triton_service

HEALTHY_LIMIT_S = 60.0


def ignore_state(_name: str, _state: State, _detail: str) -> None:
    """Do nothing: the `Report` of callers that show no progress."""


def all_services(settings: LocalSettings) -> tuple[Service, ...]:
    """Return every service of the stack that the settings describe."""
    settings.state.mkdir(parents=True, exist_ok=True)
    secrets = load_secrets(settings.state)
    services = (
        kafka_service(settings),
        postgres_service(settings, secrets.postgres_password),
        triton_service(settings),
        *application_services(settings, secrets),
    )
    return tuple(
        dataclasses.replace(service, env={**service.env, **settings.service_env.get(service.name, {})})
        for service in services
    )


class Stack:
    """Runs the services inside its `async with` block. Callers name a service and never touch its `Runner`.

    Entering locks the state folder, checks the ports, and returns when every service is healthy. If that fails, it
    raises a `LocalError` and leaves nothing running. Leaving stops the services in reverse order, each within its
    deadline. `services` names the services to start, together with the services that they need; None means all.
    """

    def __init__(
        self, settings: LocalSettings, services: Collection[str] | None = None, report: Report = ignore_state
    ) -> None:
        self.settings = settings
        every = all_services(settings)
        self.services = every if services is None else with_dependencies(every, services)
        self._order = start_order(self.services)
        self._report = report
        self._runners: dict[str, Runner] = {}
        self._lock: TextIO | None = None

    @property
    def gateway_urls(self) -> list[str]:
        """The HTTP addresses of the gateways, in the order of their ordinals."""
        first = self.settings.ports.gateway
        return [f"http://{self.settings.gateway_host}:{first + ordinal}" for ordinal in range(self.settings.gateways)]

    @property
    def database_url(self) -> str:
        """The URL of the database, for its superuser."""
        return database_url(self.settings, load_secrets(self.settings.state).postgres_password)

    @property
    def kafka_bootstrap(self) -> str:
        """The broker's address."""
        return self.settings.kafka_bootstrap

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, or None if it does not run."""
        return self._runner(name).pid

    def restarts(self, name: str) -> int:
        """Return how many times the supervisor has restarted a service."""
        return self._runner(name).restarts

    def log(self, name: str) -> Path:
        """Return the log file of a service."""
        return self._runner(name).log

    def kill(self, name: str) -> None:
        """Kill a service's process with SIGKILL; the supervisor restarts it."""
        self._runner(name).kill()

    async def stop(self, name: str) -> None:
        """Stop a service gracefully; it stays stopped until `start`."""
        await self._runner(name).stop()

    async def start(self, name: str) -> None:
        """Start a service that was stopped, and wait until it is healthy."""
        self._runner(name).launch()
        await self.wait_healthy(name)

    async def wait_healthy(self, name: str, limit_s: float = HEALTHY_LIMIT_S) -> None:
        """Wait until a service is healthy. Raises `TimeoutError`, or `StepFailed` if its supervision has ended."""
        async with asyncio.timeout(limit_s):
            await self._runner(name).wait_healthy()

    async def until_failed(self) -> None:
        """Wait until the supervision of any service fails, and raise its error. This never returns normally."""
        with first_error_of_tasks():
            async with asyncio.TaskGroup() as tasks:
                for runner in self._runners.values():
                    tasks.create_task(runner.until_failed())

    def hurry(self) -> None:
        """Kill every process at once, for a caller that does not want to wait for `__aexit__`."""
        for runner in self._runners.values():
            with contextlib.suppress(LocalError, ProcessLookupError):
                runner.kill()

    async def __aenter__(self) -> Self:
        self._lock = take_state_folder(self.settings.state)
        try:
            # Check before anything starts: a service that cannot bind its port would fail later, with a poorer message.
            check_ports(port for service in self.services for port in service.ports)
            by_name = {service.name: service for service in self.services}
            for name in (name for wave in self._order for name in wave):
                needs = [self._runners[need] for need in by_name[name].after]
                log = fresh_log(self.settings.logs, name)
                self._runners[name] = Runner(by_name[name], log, needs, self._note_state)
            # Launch all at once: each runner waits for the services that it needs, and preparations run in parallel.
            for runner in self._runners.values():
                runner.launch()
            with first_error_of_tasks():
                async with asyncio.TaskGroup() as tasks:
                    for runner in self._runners.values():
                        tasks.create_task(runner.wait_healthy())
        except BaseException:  # Ctrl-C too: `__aexit__` does not run when entering fails
            await self._stop_all()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stop_all()

    async def _stop_all(self) -> None:
        try:
            # End the supervision first, so that no service is restarted because a service that it needs has stopped.
            await asyncio.gather(*(runner.release() for runner in self._runners.values()))
            for wave in reversed(self._order):
                await asyncio.gather(*(self._runners[name].stop() for name in wave if name in self._runners))
        finally:
            if self._lock is not None:
                self._lock.close()

    def _runner(self, name: str) -> Runner:
        if name not in self._runners:
            raise LocalError(f"no such service: {name}; there are {', '.join(self._runners)}")
        return self._runners[name]

    def _note_state(self, name: str, state: State, detail: str) -> None:
        """Report a state, and write the status of all services for `whisperline-local status`."""
        self._report(name, state, detail)
        rows = [
            {
                "name": runner.service.name,
                "state": runner.state,
                "pid": runner.pid,
                "restarts": runner.restarts,
                "ports": [use.port for use in runner.service.ports],
                "log": str(runner.log),
            }
            for runner in self._runners.values()
        ]
        status = json.dumps({"supervisor": os.getpid(), "services": rows})
        write_whole(self.settings.state / STATUS_FILE, status)
