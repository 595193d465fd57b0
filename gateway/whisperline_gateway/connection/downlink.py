"""A session's events on their way to one client: each final once and in order, the rest if the client wants it."""

import asyncio
import logging
import time
from typing import Protocol

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
from whisperline_persistence import StoreError
from whisperline_runtime.tracing import exemplar

from whisperline_gateway import metrics
from whisperline_gateway.connection.outbox import Outbox

log = logging.getLogger(__name__)

MAX_HELD = 64  # live finals that wait for earlier ones; those beyond are read from the database in their turn
_MAX_QUERY_FINALS = 64
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 2.0  # between two queries for finals that are not stored yet


class FinalStore(Protocol):
    """The store of finals that were published before. See `whisperline_persistence.Store`."""

    async def finals(self, session_id: str, first_index: int = 0, end_index: int | None = None) -> list[Final]:
        """Return a session's stored finals in [first_index, end_index). Raises `StoreError`."""


class Downlink:
    """Follows one session's events for one connection.

    Nothing goes to the client before `start`. A fresh session starts at once. A resumed session starts when the
    transcriber has answered, or is late; the finals that its client missed are then read from the database.

    All finals that exist but have not arrived (`FinalOrder.gap`) are read from the database too. They may not be stored
    yet, so the query is repeated until they are, and later finals wait.

    `answer` is the transcriber's answer to this connection's RESUME; `ended` is the event that ended the session.
    """

    def __init__(
        self,
        session_id: str,
        connection_id: str,
        outbox: Outbox,
        store: FinalStore,
        *,
        interim_results: bool,
        vad_events: bool,
    ) -> None:
        self.ended: SessionEnd | None = None
        self.answer: asyncio.Future[Resumed | SessionEnd] = asyncio.get_running_loop().create_future()
        self._session_id = session_id
        self._connection_id = connection_id
        self._outbox = outbox
        self._store = store
        self._interim_results = interim_results
        self._vad_events = vad_events
        self._finals = FinalOrder()
        self._started = False
        self._news = asyncio.Event()
        self._gap_found = asyncio.Event()
        self._last_speech_index = -1
        self._last_word_end_ms = -1

    def start(self, finals_from: int = 0) -> None:
        """Send events from now on, but first the finals that the client missed, from index `finals_from` on."""
        known_end = self._finals.end
        self._finals = FinalOrder(finals_from)
        self._finals.announce(known_end)
        self._started = True
        self._check_gap()

    def on_event(self, event: Event) -> None:
        """Process the session's next event. Raises `OutboxFullError`."""
        self._news.set()
        match event:
            case Final() if self._started:
                if event.segment_index >= self._finals.expected:
                    metrics.FINAL_LATENCY.observe(max(0.0, time.time() - event.time_ms / 1000), exemplar())
                self._send_final(event)
            case Final():
                self._finals.announce(event.segment_index + 1)
            case Resumed():
                self._finals.announce(event.next_segment_index)
                # An earlier connection of the session may have sent RESUME too: its answer is not ours.
                if event.connection_id == self._connection_id and not self.answer.done():
                    self.answer.set_result(event)
            case SessionEnd():
                self.ended = event
                self._finals.announce(event.segment_count)
                if not self.answer.done():
                    self.answer.set_result(event)
            # A replay of the log may repeat or delay the other events: each is sent only if it is new.
            case Partial() if self._started and self._interim_results and event.segment_index >= self._finals.expected:
                self._outbox.put_partial(event)
            case SpeechStarted() if self._started and event.segment_index > self._last_speech_index:
                self._last_speech_index = event.segment_index
                if self._vad_events and event.segment_index >= self._finals.expected:
                    self._outbox.put(event)
            case UtteranceEnd() if self._started and event.last_word_end_ms > self._last_word_end_ms:
                self._last_word_end_ms = event.last_word_end_ms
                self._outbox.put(event)
            case Finalized() if self._started:
                self._outbox.put(event)
        self._check_gap()

    async def durable_position(self, sample_rate: int, timeout_s: float) -> int:
        """Return where the session's audio ends (samples per channel), as RESUME's answer says; 0 without an answer."""
        try:
            async with asyncio.timeout(timeout_s):
                event = await asyncio.shield(self.answer)
        except TimeoutError:
            return 0
        return event.duration_ms * sample_rate // 1000 if isinstance(event, SessionEnd) else event.position

    async def wait_for_end(self, timeout_s: float) -> bool:
        """Wait until the session has ended and its finals are sent; return False after `timeout_s` without news."""
        try:
            while self.ended is None or self._finals.expected < self.ended.segment_count:
                self._news.clear()
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def fill_gaps(self) -> None:
        """Send finals that exist but have not arrived, from the database; never return.

        Raises `StoreError` if they can never be read.
        """
        while True:
            await self._gap_found.wait()
            self._gap_found.clear()
            wait_s = _FIRST_RETRY_S
            while (gap := self._finals.gap) is not None:
                first, end = gap
                stored: list[Final] = []
                try:
                    stored = await self._store.finals(self._session_id, first, min(end, first + _MAX_QUERY_FINALS))
                except StoreError as error:
                    if not error.retriable:
                        raise
                    log.warning("finals %d to %d cannot be read yet: %s", first, end, error)
                for final in stored:
                    self._send_final(final)
                if stored:
                    metrics.BACKFILLED.inc(len(stored))
                    wait_s = _FIRST_RETRY_S
                    self._news.set()
                    await self._outbox.wait_for_space()
                else:
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_RETRY_S)

    def _check_gap(self) -> None:
        if self._started and self._finals.gap is not None:
            self._gap_found.set()

    def _send_final(self, event: Final) -> None:
        for final in self._finals.offer(event):
            self._outbox.drop_partial()
            self._outbox.put(final)


class FinalOrder:
    """Puts finals in order, each once, from two sources: live events, and the database for those that were missed.

    `expected` is the index of the next final to send. Finals with an index below `end` are known to exist.
    """

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self.end = expected
        self._held: dict[int, Final] = {}

    @property
    def gap(self) -> tuple[int, int] | None:
        """Return the range [first, end) of missing finals that exist, or None if the next final does not exist yet."""
        if self.expected >= self.end:
            return None
        return self.expected, min(self._held, default=self.end)

    def announce(self, end: int) -> None:
        """Note that all finals with an index below `end` exist."""
        self.end = max(self.end, end)

    def offer(self, final: Final) -> list[Final]:
        """Add a final, which may be a repetition; return the finals that may be sent now, in order."""
        index = final.segment_index
        self.announce(index + 1)
        if index == self.expected or (index > self.expected and len(self._held) < MAX_HELD):
            self._held[index] = final
        ready = []
        while self.expected in self._held:
            ready.append(self._held.pop(self.expected))
            self.expected += 1
        return ready
