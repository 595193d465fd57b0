"""From a session's events to the messages of one connection: finals in order and each once, the rest if wanted."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from whisperline_contracts import (
    Event,
    Final,
    Finalized,
    Partial,
    Resumed,
    SessionEnd,
    SpeechStarted,
    UtteranceEnd,
)
from whisperline_persistence import Store, StoreError

from whisperline_gateway import messages, metrics
from whisperline_gateway.finals import FinalOrder
from whisperline_gateway.outbox import Outbox

log = logging.getLogger("whisperline.gateway")

_QUERY_FINALS = 64  # the most that one query asks for
_RETRY_S = (0.1, 2.0)  # first and longest wait for finals that are not stored yet

Spawn = Callable[[Coroutine[None, None, None]], object]


class Downlink:
    """Follows one session's events for one connection.

    A fresh session is live at once. A resumed one is told nothing before `go_live`: the finals of that time, and
    those of before, are read from the database. Finals that exist but have not come (`FinalOrder.gap`) are read
    from there too, again and again until they are stored, while later ones wait.

    `attached` is the transcriber's answer to the RESUME of this connection, `ended` the end of the session.
    """

    def __init__(
        self, session_id: str, connection_id: str, outbox: Outbox, store: Store, *, spawn: Spawn, vad_events: bool
    ) -> None:
        self.interim_results = False
        self.ended: SessionEnd | None = None
        self.attached: asyncio.Future[Resumed | SessionEnd] = asyncio.get_running_loop().create_future()
        self._session_id = session_id
        self._connection_id = connection_id
        self._outbox = outbox
        self._store = store
        self._spawn = spawn
        self._vad_events = vad_events
        self._order = FinalOrder()
        self._live = False
        self._filling = False
        self._news = asyncio.Event()
        self._speech_index = -1
        self._last_word_end_ms = -1

    def go_live(self, finals_from: int = 0) -> None:
        """Tell events from now on, after the finals from index `finals_from` that were missed."""
        missed = self._order
        self._order = FinalOrder(finals_from)
        self._order.announce(missed.end)
        self._live = True
        self._fill()

    def on_event(self, event: Event) -> None:
        """Take the session's next event. Raises `OutboxFull`."""
        self._news.set()
        match event:
            case Final():
                self._final(event)
            case Resumed():
                self._order.announce(event.next_segment_index)
                if event.connection_id == self._connection_id:
                    self._attach(event)
            case SessionEnd():
                self.ended = event
                self._order.announce(event.segment_count)
                self._attach(event)
            case _ if self._live:
                self._lively(event)
        self._fill()

    async def durable_position(self, sample_rate: int, timeout_s: float) -> int:
        """Return where the session's audio ends, by the answer to RESUME; 0 if that does not come in time."""
        try:
            async with asyncio.timeout(timeout_s):
                event = await asyncio.shield(self.attached)
        except TimeoutError:
            return 0
        return event.duration_ms * sample_rate // 1000 if isinstance(event, SessionEnd) else event.position

    async def complete(self, timeout_s: float) -> bool:
        """Wait until the session has ended and its finals are told; False after `timeout_s` without news of it."""
        try:
            while self.ended is None or self._order.expected < self.ended.segment_count:
                self._news.clear()
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _attach(self, event: Resumed | SessionEnd) -> None:
        if not self.attached.done():
            self.attached.set_result(event)

    def _final(self, event: Final) -> None:
        if not self._live:
            self._order.announce(event.segment_index + 1)
            return
        if event.segment_index >= self._order.expected:
            metrics.FINAL_LATENCY.observe(max(0.0, time.time() - event.time_ms / 1000))
        self._tell(event)

    def _tell(self, event: Final) -> None:
        for final in self._order.offer(event):
            self._outbox.drop_partial()
            self._outbox.put(messages.final(final))

    def _lively(self, event: Event) -> None:
        """Tell what a replay may bring again, or bring late, only when it is new."""
        match event:
            case Partial() if self.interim_results and event.segment_index >= self._order.expected:
                self._outbox.put_partial(messages.partial(event))
            case SpeechStarted() if self._vad_events and event.segment_index > self._speech_index:
                self._speech_index = event.segment_index
                if event.segment_index >= self._order.expected:
                    self._outbox.put(messages.speech_started(event))
            case UtteranceEnd() if event.last_word_end_ms > self._last_word_end_ms:
                self._last_word_end_ms = event.last_word_end_ms
                self._outbox.put(messages.utterance_end(event))
            case Finalized():
                self._outbox.put(messages.finalized(event))

    def _fill(self) -> None:
        if self._live and not self._filling and self._order.gap is not None:
            self._filling = True
            self._spawn(self._fill_gap())

    async def _fill_gap(self) -> None:
        wait_s, longest_s = _RETRY_S
        try:
            while (gap := self._order.gap) is not None:
                stored = await self._stored_finals(*gap)
                for final in stored:
                    self._tell(final)
                metrics.BACKFILLED.inc(len(stored))
                if stored:
                    wait_s = _RETRY_S[0]
                    self._news.set()
                    await self._outbox.room()
                else:
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, longest_s)
        finally:
            self._filling = False

    async def _stored_finals(self, first: int, end: int) -> list[Final]:
        try:
            return await self._store.finals(self._session_id, first, min(end, first + _QUERY_FINALS))
        except StoreError as error:
            if not error.retriable:
                raise
            log.warning("session %s: finals %d to %d cannot be read yet: %s", self._session_id, first, end, error)
            return []
