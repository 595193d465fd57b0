"""A service of the stack as data, and the order in which services start."""

import signal
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from whisperline_local.errors import LocalError
from whisperline_local.ports import PortUse
from whisperline_local.process import Tell


async def nothing() -> None:
    """Do nothing when the process is ready."""


async def no_preparation(_tell: Tell) -> None:
    """Prepare nothing."""


async def always(_pid: int) -> bool:
    """Hold for any process."""
    return True


@dataclass(frozen=True)
class Service:
    """One process of the stack: how it is prepared, started, asked for its health, and stopped.

    `prepare` runs before the first process, beside the preparations of the others, and must be idempotent: it does
    not wait for the services that `after` names.
    `ready` is asked with the process id. `on_ready` runs each time the process has become ready, and must be
    idempotent: only then is the service healthy, and those that name it in `after` start. A service that is
    `once` is healthy when its command has exited with 0. `unready_limit_s`: a service that has been healthy and
    then is not ready for so long is killed and started anew (None: it may take all the time it wants, for
    example because what it depends on is away).
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    ports: tuple[PortUse, ...] = ()
    prepare: Callable[[Tell], Awaitable[None]] = no_preparation
    ready: Callable[[int], Awaitable[bool]] = always
    on_ready: Callable[[], Awaitable[None]] = nothing
    once: bool = False
    user_id: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL  # what the process gets when the supervisor has been killed
    start_limit_s: float = 60.0
    stop_limit_s: float = 10.0
    unready_limit_s: float | None = None
    hint: str = ""


def start_order(services: Iterable[Service]) -> tuple[tuple[str, ...], ...]:
    """Group service names into waves: each wave needs only the waves before it.

    Raises `LocalError` when services wait for each other, or for one that is not there.
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
    """Return the named services and all that they need, in the order given."""
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
