"""The connections of this gateway process, and their sessions. Other gateways have registries of their own."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from whisperline_contracts import Event

from whisperline_gateway import metrics
from whisperline_gateway.connection.connection import Connection
from whisperline_gateway.connection.uplink import Uplink
from whisperline_gateway.errors import RestartingError, SupersededError, overloaded
from whisperline_gateway.settings import Settings

log = logging.getLogger(__name__)

_FLUSH_S = 3.0  # when the process stops: how long to wait for Kafka to acknowledge the last records


class Registry:
    """Admits connections, routes events to them, and keeps sessions whose client is away.

    A session is attached to at most one connection: the newest one that started or resumed it. When the
    connection leaves, the session is detached: it keeps its uplink for a grace period, in which a client may resume it.
    """

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self._settings = settings
        self._stopping = asyncio.Event()
        self._connections: set[Connection] = set()
        self._attached: dict[str, Connection] = {}
        self._detached: dict[str, tuple[Uplink, asyncio.Task[None]]] = {}

    @property
    def connection_count(self) -> int:
        """Return the number of connections."""
        return len(self._connections)

    @contextmanager
    def admit(self, connection: Connection) -> Iterator[None]:
        """Count a connection while the `with` lasts. Raises `ClientError` if there is no place for it."""
        if self.draining:
            raise RestartingError
        limit = self._settings.max_connections
        if len(self._connections) >= limit or len(self._connections) + len(self._detached) >= 2 * limit:
            raise overloaded(limit)
        self._connections.add(connection)
        metrics.CONNECTIONS.set(len(self._connections))
        try:
            yield
        finally:
            self._connections.discard(connection)
            metrics.CONNECTIONS.set(len(self._connections))
            if self._attached.get(connection.session_id) is connection:
                del self._attached[connection.session_id]

    async def attach(self, connection: Connection) -> None:
        """Route the events of the connection's session to it. It supersedes an earlier connection."""
        before = self._attached.get(connection.session_id)
        self._attached[connection.session_id] = connection
        if before is not None:
            before.interrupt(SupersededError())
        waiting = self._detached.pop(connection.session_id, None)
        if waiting is not None:
            uplink, task = waiting
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await uplink.close()  # a task that is cancelled before it has begun closes nothing itself

    def detach(self, session_id: str, uplink: Uplink, grace_s: float) -> None:
        """Keep a session without a client for `grace_s`, then end it. The registry owns the uplink from now on."""
        task = asyncio.create_task(self._keep(uplink, grace_s), name=f"detached {session_id}")
        self._detached[session_id] = (uplink, task)
        metrics.DETACHED.set(len(self._detached))

        def forget(_: "asyncio.Task[None]") -> None:
            if self._detached.get(session_id) == (uplink, task):  # False if it was resumed and detached again
                del self._detached[session_id]
            metrics.DETACHED.set(len(self._detached))

        task.add_done_callback(forget)

    def route(self, event: Event) -> None:
        """Hand an event to the connection of its session."""
        connection = self._attached.get(event.session_id)
        if connection is None:
            metrics.UNROUTED.inc()
            return
        try:
            connection.on_event(event)
        except Exception as error:
            connection.interrupt(error)

    async def drain(self) -> None:
        """Admit no more connections, and end the present ones before the deadline, as far as possible."""
        self.draining = True
        connections = list(self._connections)
        log.info("draining %d connections", len(connections))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s + _FLUSH_S):
                await asyncio.gather(*(connection.drain() for connection in connections), return_exceptions=True)

    async def close(self) -> None:
        """Flush the audio of detached sessions, without ending them: another gateway may still resume them."""
        self._stopping.set()
        tasks = [task for _, task in self._detached.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=_FLUSH_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, uplink: Uplink, grace_s: float) -> None:
        try:
            if grace_s == 0:
                uplink.end()
            else:
                try:
                    async with asyncio.timeout(grace_s):
                        await self._stopping.wait()
                except TimeoutError:
                    uplink.end()
            async with asyncio.timeout(self._settings.durable_timeout_s):
                await uplink.flush()
        except TimeoutError:
            log.warning("connection %s: its last records could not be stored", uplink.connection_id)
        finally:
            await uplink.close()
