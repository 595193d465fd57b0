"""One connection's audio on its way into the log."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiokafka.errors import KafkaError
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_contracts.topics import MAX_AUDIO_BYTES

from whisperline_gateway import metrics
from whisperline_gateway.acks import AckTracker
from whisperline_gateway.kafka import AudioLog
from whisperline_gateway.pcm import PcmFormat

log = logging.getLogger("whisperline.gateway")

_CONTROL_BYTES = 512  # what a record without audio counts for: most of it is headers


@dataclass(frozen=True)
class Pace:
    """How audio is gathered into records, and how much of it may wait."""

    flush_s: float
    heartbeat_s: float
    in_flight_bytes: int


class Uplink:
    """Writes one connection's records, in order, in the background.

    Calls `on_stored(position)` each time that the durable prefix has grown, and `on_failure()` once, when a record
    could not be written: nothing is written or told after that. While `in_flight_bytes` wait for Kafka there is no
    room for more; then the socket is not read, and the client feels the pressure through TCP.
    """

    def __init__(
        self,
        audio_log: AudioLog,
        template: AudioChunk,
        pace: Pace,
        on_stored: Callable[[int], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._log = audio_log
        self._generation = audio_log.generation
        self._template = template
        self._pace = pace
        self._on_stored = on_stored
        self._on_failure = on_failure
        self._frame_bytes = PcmFormat(template.sample_rate, template.channels).frame_bytes
        self._queue: deque[bytearray | AudioKind] = deque()
        self._waiting_bytes = 0  # in the queue, or handed to Kafka and not durable
        self._sequence = 0
        self._sent_position = template.position
        self._acks = AckTracker(template.position)
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        self._failed = False
        self._ended = False
        self._pump: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """The end of the durable audio, in samples a channel."""
        return self._acks.position

    @property
    def connection_id(self) -> str:
        """The connection that this is the uplink of."""
        return self._template.connection_id

    @property
    def failed(self) -> bool:
        """Whether a record could not be written, or `close` was called."""
        return self._failed

    async def open(self, kind: AudioKind) -> bool:
        """Write START or RESUME; return whether it is durable. What is queued meanwhile waits for `begin`."""
        await self._send(kind)
        return await self._settled_all()

    def begin(self, position: int) -> None:
        """Let audio flow, from `position` on. Only the first call counts."""
        if self._pump is not None:
            return
        self._sent_position = position
        self._acks.rebase(position)
        self._pump = asyncio.create_task(self._run(), name=f"uplink {self._template.session_id}")

    def write(self, samples: bytes) -> None:
        """Queue whole samples. Before more are written `room` must be waited for, unless `has_room`."""
        if self._ended or self._failed:
            return
        last = self._queue[-1] if self._queue else None
        if isinstance(last, bytearray):
            last += samples
        else:
            self._queue.append(bytearray(samples))
        self._waiting_bytes += len(samples)
        self._work.set()

    @property
    def has_room(self) -> bool:
        """Whether less than `in_flight_bytes` wait for Kafka."""
        return self._waiting_bytes < self._pace.in_flight_bytes

    async def room(self) -> bool:
        """Wait for room; return False if there will never be."""
        while not self.has_room and not self._failed:
            await self._change()
        return not self._failed

    def finalize(self) -> None:
        """Queue FINALIZE, after the audio so far; one that would follow another is the same. See `write` for room."""
        self._control(AudioKind.FINALIZE)

    def resume(self) -> None:
        """Queue RESUME again: the answer to the first one has not come."""
        self._control(AudioKind.RESUME)

    def end(self) -> None:
        """Queue END, after the audio so far. Nothing may follow it."""
        self._control(AudioKind.END)
        self._ended = True

    async def drained(self) -> bool:
        """Wait until all that was queued is durable; return False if it will never be."""
        while (self._queue or len(self._acks)) and not self._failed:
            await self._change()
        return not self._failed

    async def close(self) -> None:
        """Stop writing; what still waits is dropped."""
        self._failed = True
        self._changed.set()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def _control(self, kind: AudioKind) -> None:
        if self._ended or self._failed or (self._queue and self._queue[-1] is kind):
            return
        self._queue.append(kind)
        self._waiting_bytes += _CONTROL_BYTES
        self._work.set()

    async def _settled_all(self) -> bool:
        while len(self._acks) and not self._failed:
            await self._change()
        return not self._failed

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self) -> None:
        while not self._failed:
            if not await self._has_work():
                await self._send(AudioKind.AUDIO)  # shows that the connection lives
                continue
            await asyncio.sleep(self._pace.flush_s)
            self._work.clear()
            while self._queue and not self._failed:
                await self._send_next(self._queue[0])
                self._queue.popleft()

    async def _has_work(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.heartbeat_s):
                return await self._work.wait()
        except TimeoutError:
            return self._ended  # a session that has ended shows no life

    async def _send_next(self, item: bytearray | AudioKind) -> None:
        if isinstance(item, AudioKind):
            await self._send(item, charged_bytes=_CONTROL_BYTES)
            return
        limit = MAX_AUDIO_BYTES - MAX_AUDIO_BYTES % self._frame_bytes
        while item and not self._failed:  # `write` may add to it meanwhile
            piece = bytes(item[:limit])
            del item[:limit]
            await self._send(AudioKind.AUDIO, piece, charged_bytes=len(piece))

    async def _send(self, kind: AudioKind, data: bytes = b"", charged_bytes: int = 0) -> None:
        """Hand a record over, which is `charged_bytes` of those that wait."""
        if self._generation != self._log.generation:  # a new producer could overtake the one that has our last records
            if not await self._settled_all():
                return
            self._generation = self._log.generation
        chunk = replace(self._template, kind=kind, sequence=self._sequence, position=self._sent_position, data=data)
        self._sequence += 1
        self._sent_position += chunk.samples
        ticket = self._acks.sent(self._sent_position)
        began_s = time.monotonic()
        try:
            future = await self._log.append(chunk)
        except KafkaError as error:
            self._fail(error)
            return
        except asyncio.CancelledError:  # the record was not handed over, so no later one may be
            self._failed = True
            raise
        future.add_done_callback(lambda done: self._settled(done, ticket, len(data), charged_bytes, began_s))

    def _settled(
        self, done: "asyncio.Future[object]", ticket: int, audio_bytes: int, charged_bytes: int, began_s: float
    ) -> None:
        failure = done.exception() if not done.cancelled() else asyncio.CancelledError()
        if failure is not None:
            self._fail(failure)
            return
        metrics.ACK_LATENCY.observe(time.monotonic() - began_s)
        metrics.STORED_BYTES.inc(audio_bytes)
        self._waiting_bytes -= charged_bytes
        moved = self._acks.stored(ticket)
        self._changed.set()
        if moved and not self._failed:
            self._on_stored(self._acks.position)

    def _fail(self, failure: BaseException) -> None:
        if self._failed:
            return
        log.error("session %s: audio could not be stored: %r", self._template.session_id, failure)
        self._failed = True
        self._changed.set()
        self._on_failure()
