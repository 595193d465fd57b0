"""One gateway process: it opens its resources in order, and closes them in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whisperline_contracts.topics import TRANSCRIPTIONS_DEAD
from whisperline_persistence import Store
from whisperline_runtime.process import Stop
from whisperline_runtime.producer import DeadLetters, DurableProducer

from whisperline_gateway import metrics
from whisperline_gateway.connection.connection import Services
from whisperline_gateway.kafka import AudioLog, EventReader, check_topics
from whisperline_gateway.registry import Registry
from whisperline_gateway.settings import Settings

log = logging.getLogger(__name__)

_READY_S = 2.0  # longest wait for Kafka's answer to a probe


class Gateway:
    """Holds everything that the HTTP side needs: settings, the registry, and the services of connections."""

    def __init__(self, settings: Settings, audio_log: AudioLog, store: Store, events: EventReader) -> None:
        self.settings = settings
        self.registry = Registry(settings)
        self.services = Services(settings, audio_log, store, self.registry.attach, self.registry.detach)
        self.problem: str | None = None  # why new connections would fail, when `update_problem` last looked
        self._events = events

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, stop: Stop) -> AsyncIterator["Gateway"]:
        """Open all resources, after which sockets may be accepted. Sets `stop` if events can no longer be read.

        The audio log opens first. The events come next: the end of their partition must be known before any session
        starts. The database is last, and may be unreachable. At the end detached sessions are flushed before the audio
        log closes. Raises `StartupError`, and at the end the `FatalError` that stopped the reading of events.
        """
        broker = settings.broker
        await check_topics(broker, settings.ordinal, settings.start_timeout_s)
        async with (
            AudioLog.open(broker) as audio_log,
            DurableProducer(broker, "whisperline-gateway-dead-letters") as producer,
            EventReader.open(broker, settings.ordinal) as events,
            Store.open(settings.database_url.get_secret_value()) as store,
        ):
            gateway = cls(settings, audio_log, store, events)
            dead_letters = DeadLetters(
                producer,
                TRANSCRIPTIONS_DEAD,
                consumer=f"gateway-{settings.ordinal}",
                limit=settings.dead_letters_in_a_row,
                counter=metrics.DEAD_LETTERS,
            )

            async def read_events() -> None:
                try:
                    await events.run(gateway.registry.route, dead_letters)
                finally:
                    stop.set()  # without events no session gets its text: stop, and let clients go elsewhere

            reading = asyncio.create_task(read_events(), name="events")
            try:
                yield gateway
            finally:
                await gateway.registry.close()
                reading.cancel()
                await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()

    async def update_problem(self) -> None:
        """Update `problem`. Takes 2 s if Kafka does not answer."""
        if self.registry.draining:
            self.problem = "draining"
        elif await self._events.is_reachable(_READY_S):
            self.problem = None
        else:
            self.problem = "Kafka does not answer"
