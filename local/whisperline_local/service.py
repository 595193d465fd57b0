"""A service of the stack as data, and the order in which services start."""

import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from whisperline_local.errors import LocalError
from whisperline_local.ports import PortUse
from whisperline_local.process import ReportStep
from whisperline_local.settings import LocalSettings


async def nothing_on_ready() -> None:
    """Do nothing: the default of `Service.on_ready`."""


async def no_preparation(_report_step: ReportStep) -> None:
    """Do nothing: the default of `Service.prepare`."""


async def always_ready(_pid: int) -> bool:
    """Return True: the default of `Service.ready`."""
    return True


@dataclass(frozen=True)
class Service:
    """One process of the stack: how to prepare, start, probe and stop it.

    `prepare` runs once, before the first process and at the same time as the preparations of the others. It must be
    idempotent, and does not wait for the services in `after`.
    `ready` is polled with the process id. `on_ready` runs each time a new process has become ready,
    and must be idempotent. Then the service is healthy, and the services that name it in `after` start.
    A `once` service is a command that ends: it is healthy when it has exited with 0.
    A service that was healthy and is then not ready for `unready_limit_s` is killed and restarted. None: it is left
    alone, for example because it is unready while a service it depends on is away.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    ports: tuple[PortUse, ...] = ()
    prepare: Callable[[ReportStep], Awaitable[object]] = no_preparation
    ready: Callable[[int], Awaitable[bool]] = always_ready
    on_ready: Callable[[], Awaitable[None]] = nothing_on_ready
    once: bool = False
    user_id: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL  # sent by Linux to the process when the supervisor dies
    start_limit_s: float = 60.0
    stop_limit_s: float = 10.0
    unready_limit_s: float | None = None
    hint: str = ""


def trace_env(settings: LocalSettings, kind: str, instance: str) -> dict[str, str]:
    """Return the variables that identify a process in traces.

    Services inherit all other `OTEL_*` variables from the supervisor's environment.
    """
    inherited = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    instance_id = f"service.instance.id={instance}"
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": settings.otel_endpoint} if settings.otel_endpoint else {}
    return {
        "OTEL_SERVICE_NAME": f"whisperline-{kind}",
        "OTEL_RESOURCE_ATTRIBUTES": f"{inherited},{instance_id}" if inherited else instance_id,
        **endpoint,
    }


def start_order(services: Iterable[Service]) -> tuple[tuple[str, ...], ...]:
    """Group service names into waves, so that each wave needs only the waves before it.

    Raises `LocalError` if services wait for each other, or for one that does not exist.
    """
    graph = {service.name: set(service.after) for service in services}
    if missing := set().union(*graph.values()) - graph.keys():
        raise LocalError(f"no such service: {', '.join(sorted(missing))}")
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise LocalError(f"services wait for each other: {' -> '.join(error.args[1])}") from error
    waves = []
    while ready := tuple(sorted(sorter.get_ready())):
        waves.append(ready)
        sorter.done(*ready)
    return tuple(waves)


def with_dependencies(services: Iterable[Service], names: Collection[str]) -> tuple[Service, ...]:
    """Return the named services and all services that they need, in the order of `services`."""
    by_name = {service.name: service for service in services}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in by_name:
            raise LocalError(f"no such service: {name}; there are {', '.join(by_name)}")
        if name not in wanted:
            wanted.add(name)
            pending += by_name[name].after
    return tuple(service for name, service in by_name.items() if name in wanted)
