"""What all connections of one gateway share: the log, the events that come back, the database, the sessions."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from aiokafka.errors import KafkaError
from whisperline_contracts import Event
from whisperline_contracts.broker import BrokerRefused
from whisperline_contracts.topics import AUDIO_CHUNKS, TRANSCRIPTIONS, TRANSCRIPTIONS_DEAD
from whisperline_persistence import Store

from whisperline_gateway import metrics
from whisperline_gateway.errors import overloaded, restarting
from whisperline_gateway.kafka import AudioLog, EventReader, StartError
from whisperline_gateway.settings import Settings
from whisperline_gateway.uplink import Pace, Uplink

log = logging.getLogger("whisperline.gateway")

_RETRY_S = 0.5
_READY_S = 2.0
_FLUSH_S = 3.0


class Attached(Protocol):
    """What the gateway needs of a connection."""

    session_id: str

    def on_event(self, event: Event) -> None:
        """Take an event of the session. Must not block."""

    def supersede(self) -> None:
        """End the connection: another one has the session now."""

    async def drain(self) -> None:
        """End the connection because the gateway stops; return when its socket is closed."""


class Gateway:
    """The state of one gateway process. It knows the sessions that are connected to it, and no others."""

    def __init__(self, settings: Settings, audio_log: AudioLog, events: EventReader, store: Store) -> None:
        self.settings = settings
        self.audio_log = audio_log
        self.store = store
        self.pace = Pace(settings.flush_ms / 1000, settings.heartbeat_s, settings.in_flight_bytes)
        self.draining = False
        self._stopping = asyncio.Event()
        self._events = events
        self._connections: set[Attached] = set()
        self._sessions: dict[str, Attached] = {}
        self._detached: dict[str, asyncio.Task[None]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, on_fatal: Callable[[], None]) -> AsyncIterator["Gateway"]:
        """Connect to everything, and read events; then sockets may be accepted.

        Order: the log, then the events (from the end of the partition: so before any session starts), then the
        database, which may be away. The reverse at the end: detached sessions are settled before the log is
        flushed. Raises `StartError`. Calls `on_fatal` if events can no longer be read.
        """
        async with (
            _kafka(settings) as (audio_log, events),
            Store.open(settings.database_url.get_secret_value()) as store,
        ):
            gateway = cls(settings, audio_log, events, store)
            gateway._start_reading(on_fatal)
            try:
                yield gateway
            finally:
                await gateway._settle_detached()
                await gateway._stop_reading()

    @property
    def connection_count(self) -> int:
        """How many sockets are being served."""
        return len(self._connections)

    def admit(self, connection: Attached) -> None:
        """Count a connection in. Raises `ClientError` if there is no place for it."""
        if self.draining:
            raise restarting()
        limit = self.settings.max_connections
        if len(self._connections) >= limit or len(self._connections) + len(self._detached) >= 2 * limit:
            raise overloaded(limit)
        self._connections.add(connection)
        metrics.CONNECTIONS.set(len(self._connections))

    def dismiss(self, connection: Attached) -> None:
        """Count a connection out; events of its session are no longer for it."""
        self._connections.discard(connection)
        metrics.CONNECTIONS.set(len(self._connections))
        if self._sessions.get(connection.session_id) is connection:
            del self._sessions[connection.session_id]

    async def attach(self, connection: Attached) -> None:
        """Route the events of the connection's session to it, and to no other."""
        before = self._sessions.get(connection.session_id)
        self._sessions[connection.session_id] = connection
        if before is not None:
            before.supersede()
        waiting = self._detached.pop(connection.session_id, None)
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    def detach(self, session_id: str, uplink: Uplink, grace_s: float) -> None:
        """Keep a session whose client is away, then end it. Its stored audio stays whatever happens here."""
        task = asyncio.create_task(self._expire(uplink, grace_s), name=f"detached {session_id}")
        self._detached[session_id] = task
        metrics.DETACHED.set(len(self._detached))
        task.add_done_callback(lambda _: self._forget(session_id, task))

    async def ready(self) -> bool:
        """Whether new connections will be served."""
        reading = self._reading is not None and not self._reading.done()
        return reading and not self.draining and await self._events.reachable(_READY_S)

    async def drain(self) -> None:
        """Take no more connections, and end those that there are, as far as that goes in time."""
        self.draining = True
        connections = list(self._connections)
        log.info("draining %d connections", len(connections))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout_s + _FLUSH_S):
                await asyncio.gather(*(connection.drain() for connection in connections), return_exceptions=True)

    def _route(self, event: Event) -> None:
        connection = self._sessions.get(event.session_id)
        if connection is None:
            metrics.UNROUTED.inc()
            return
        try:
            connection.on_event(event)
        except Exception:
            log.exception("session %s: an event could not be handled", event.session_id)

    async def _expire(self, uplink: Uplink, grace_s: float) -> None:
        try:
            if grace_s == 0 or not await self._stopped_within(grace_s):
                uplink.end()
            async with asyncio.timeout(self.settings.durable_timeout_s):
                await uplink.drained()
        except TimeoutError:
            log.warning("connection %s: its last records could not be stored", uplink.connection_id)
        finally:
            await uplink.close()

    async def _stopped_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    def _forget(self, session_id: str, task: "asyncio.Task[None]") -> None:
        if self._detached.get(session_id) is task:
            del self._detached[session_id]
        metrics.DETACHED.set(len(self._detached))

    async def _settle_detached(self) -> None:
        """Write what waits for the log. Sessions in their grace are not ended: they may be resumed elsewhere."""
        self._stopping.set()
        tasks = list(self._detached.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_FLUSH_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_reading(self, on_fatal: Callable[[], None]) -> None:
        def stopped(task: "asyncio.Task[None]") -> None:
            if not task.cancelled():
                log.critical("events can no longer be read", exc_info=task.exception())
                on_fatal()

        self._reading = asyncio.create_task(self._events.run(self._route, self.audio_log), name="events")
        self._reading.add_done_callback(stopped)

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def _kafka(settings: Settings) -> AsyncIterator[tuple[AudioLog, EventReader]]:
    await _await_kafka(settings)
    async with (
        AudioLog.open(settings.broker) as audio_log,
        EventReader.open(settings.broker, settings.ordinal) as events,
    ):
        yield audio_log, events


async def _await_kafka(settings: Settings) -> None:
    """Wait until Kafka answers. Raises `StartError`, at once if it refuses us, or has no topic or partition for us."""
    deadline_s = time.monotonic() + settings.start_timeout_s
    while True:
        try:
            await settings.broker.reach()
            async with AudioLog.open(settings.broker) as audio_log:
                await audio_log.partition_count(AUDIO_CHUNKS)
                await audio_log.partition_count(TRANSCRIPTIONS_DEAD)
                _check_ordinal(settings.ordinal, await audio_log.partition_count(TRANSCRIPTIONS))
                return
        except BrokerRefused as error:
            raise StartError(str(error)) from error
        except KafkaError as error:
            if time.monotonic() > deadline_s:
                raise StartError(f"Kafka at {settings.kafka_bootstrap} does not answer: {error}") from error
            log.info("waiting for Kafka at %s: %s", settings.kafka_bootstrap, error)
            await asyncio.sleep(_RETRY_S)


def _check_ordinal(ordinal: int, partitions: int) -> None:
    if ordinal >= partitions:
        raise StartError(
            f"WHISPERLINE_GATEWAY_ORDINAL is {ordinal}, but {TRANSCRIPTIONS} has {partitions} partitions "
            f"(0 to {partitions - 1}), one for each gateway: raise its partitions, or run fewer gateways"
        )
