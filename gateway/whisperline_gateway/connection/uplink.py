"""One connection's audio on its way into Kafka."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from aiokafka.structs import RecordMetadata
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_contracts.topics import AUDIO_CHUNKS, MAX_AUDIO_BYTES
from whisperline_runtime.tracing import (
    Context,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    exemplar,
    traceparent_of,
    tracer,
)

from whisperline_gateway import metrics
from whisperline_gateway.protocol.pcm import PcmFormat

log = logging.getLogger(__name__)
TRACER = tracer(__name__)

_CONTROL_BYTES = 512  # the assumed size of a record without audio, which consists mostly of headers


class UplinkPhase(Enum):
    """The phase of an uplink. It only moves down this list; CLOSED and FAILED are both final."""

    OPENING = "opening"  # START or RESUME is not durable yet
    FLOWING = "flowing"  # audio is written
    ENDED = "ended"  # END is queued, and nothing may follow it
    CLOSED = "closed"  # `close` was called, and the records that waited were dropped
    FAILED = "failed"  # a record could not be written, nor any record after it


@dataclass(frozen=True)
class UplinkLimits:
    """Limits on how audio is gathered into records, and on how much of it may wait."""

    flush_s: float  # the least time between two records of audio, which is gathered meanwhile
    heartbeat_s: float  # after this long without a record an empty one is written
    in_flight_bytes: int  # audio that may wait for Kafka


@dataclass(frozen=True)
class RecordSpans:
    """The parent and the link of the spans of a connection's records. Exists only if tracing is on."""

    parent: Context  # the client's; an empty one makes each record the root of its trace
    link: Link  # to the connection's span

    def start(self, chunk: AudioChunk, received_ns: int) -> Span:
        """Start the span of a record whose first sample was received at `received_ns` (since the Unix epoch)."""
        return TRACER.start_span(
            f"{AUDIO_CHUNKS} send",
            self.parent,
            SpanKind.PRODUCER,
            {
                "messaging.system": "kafka",
                "messaging.destination.name": AUDIO_CHUNKS,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "whisperline.session.id": chunk.session_id,
                "whisperline.connection.id": chunk.connection_id,
                "whisperline.audio.position_ms": chunk.position * 1000 // chunk.sample_rate,
            },
            [self.link],
            start_time=received_ns,
        )


@dataclass
class _Gathered:
    """Audio that is gathered into the next records."""

    samples: bytearray
    received_ns: int  # when its first sample arrived, since the Unix epoch; 0 without spans


class RecordLog(Protocol):
    """The log that records are appended to. See `kafka.AudioLog`."""

    generation: int  # records appended under the same number keep their order

    async def append(self, chunk: AudioChunk) -> "asyncio.Future[RecordMetadata]":
        """Hand a record over; the future is done when it is durable. Raises `KafkaError`, and so does the future."""


class Uplink:
    """Writes one connection's records, in order, in a task of its own.

    Every record goes through one queue, and START or RESUME is its first. The uplink calls `on_durable(position)` each
    time the durable prefix has grown, and `on_failure()` once, when a record could not be written; after that it writes
    nothing and calls nothing. While `in_flight_bytes` wait for Kafka there is no space for more: the socket is then not
    read, and TCP slows the client down.

    An uplink may outlive its connection: a session whose client is away keeps its uplink until it is resumed or ended.
    """

    def __init__(
        self,
        audio_log: RecordLog,
        template: AudioChunk,
        limits: UplinkLimits,
        on_durable: Callable[[int], None],
        on_failure: Callable[[], None],
        *,
        spans: RecordSpans | None = None,
    ) -> None:
        self.phase = UplinkPhase.OPENING
        self._log = audio_log
        self._generation = audio_log.generation
        self._template = template
        self._limits = limits
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._spans = spans
        self._queue: deque[_Gathered | AudioKind] = deque()
        # The size of all items in the queue and all records that Kafka has not acknowledged. An item is added when it
        # is queued, and subtracted when its record is durable. Heartbeats are not queued, and do not count.
        self._waiting_bytes = 0
        self._sequence = 0
        self._next_position = template.position  # of the next record
        self._tracker = AckTracker(template.position)
        self._work = asyncio.Event()
        self._control_waits = asyncio.Event()  # a record other than audio is in the queue
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """Return where the durable audio ends, in samples per channel."""
        return self._tracker.position

    @property
    def connection_id(self) -> str:
        """Return the id of the connection whose audio this is."""
        return self._template.connection_id

    @property
    def is_running(self) -> bool:
        """Return True while records may still be written."""
        return self.phase not in (UplinkPhase.CLOSED, UplinkPhase.FAILED)

    async def open(self, kind: AudioKind) -> bool:
        """Write START or RESUME at once; return True when it is durable, or False if it never will be."""
        self._queue_control(kind)
        self._pump = asyncio.create_task(self._run(), name=f"uplink {self._template.session_id}")
        while self.phase is UplinkPhase.OPENING:
            await self._change()
        return self.is_running

    def rebase(self, position: int) -> None:
        """Continue from `position`, the end of the session's durable audio. Call this before the first `write`."""
        self._next_position = position
        self._tracker.rebase(position)

    def write(self, samples: bytes) -> None:
        """Queue whole samples, if audio flows. Unless `has_space`, wait for space before writing more."""
        if not samples or self.phase is not UplinkPhase.FLOWING:
            return
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Gathered):
            last.samples += samples
        else:
            self._queue.append(_Gathered(bytearray(samples), time.time_ns() if self._spans is not None else 0))
        self._waiting_bytes += len(samples)
        self._work.set()

    @property
    def has_space(self) -> bool:
        """Return True if less than `in_flight_bytes` wait for Kafka."""
        return self._waiting_bytes < self._limits.in_flight_bytes

    async def wait_for_space(self) -> bool:
        """Wait for space; return False if there will never be any."""
        while not self.has_space and self.is_running:
            await self._change()
        return self.is_running

    def finalize(self) -> None:
        """Queue FINALIZE behind the audio so far; two in a row become one. It uses space, as `write` does."""
        self._queue_control(AudioKind.FINALIZE)

    def resume_again(self) -> None:
        """Queue another RESUME, because the transcriber has not answered the first one."""
        self._queue_control(AudioKind.RESUME)

    def end(self) -> None:
        """Queue END behind the audio so far."""
        self._queue_control(AudioKind.END)
        if self.is_running:
            self.phase = UplinkPhase.ENDED

    async def flush(self) -> bool:
        """Wait until everything in the queue is durable; return False if it will never be."""
        while (self._queue or len(self._tracker)) and self.is_running:
            await self._change()
        return self.is_running

    async def close(self) -> None:
        """Stop writing, and drop the records that still wait."""
        if self.phase is not UplinkPhase.FAILED:
            self.phase = UplinkPhase.CLOSED
        self._changed.set()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def _queue_control(self, kind: AudioKind) -> None:
        if not self.is_running or self.phase is UplinkPhase.ENDED or (self._queue and self._queue[-1] is kind):
            return
        self._queue.append(kind)
        self._waiting_bytes += _CONTROL_BYTES
        self._control_waits.set()
        self._work.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_audio_s = loop.time()
        try:
            while self.is_running:
                try:
                    async with asyncio.timeout(self._limits.heartbeat_s):
                        await self._work.wait()
                except TimeoutError:
                    if self.phase is not UplinkPhase.ENDED:
                        await self._send(AudioKind.AUDIO)  # an empty record shows that the connection lives
                    continue
                # Audio that comes in many small pieces is gathered. A piece that comes alone goes out at once, and so
                # does what the client waits for: the effect of a FINALIZE or END.
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_audio_s):
                        await self._control_waits.wait()
                if any(isinstance(item, _Gathered) for item in self._queue):
                    next_audio_s = loop.time() + self._limits.flush_s
                self._work.clear()
                self._control_waits.clear()
                while self._queue and self.is_running:
                    # The item stays at the head while it is sent: `flush` must not take the queue for empty.
                    await self._send_item(self._queue[0])
                    self._queue.popleft()
        except Exception as error:  # KafkaError, or a defect: either way the records behind this one cannot be written
            self._fail(error)

    async def _send_item(self, item: _Gathered | AudioKind) -> None:
        if isinstance(item, AudioKind):
            await self._send(item)
            return
        frame_bytes = PcmFormat(self._template.sample_rate, self._template.channels).frame_bytes
        limit = MAX_AUDIO_BYTES - MAX_AUDIO_BYTES % frame_bytes
        while item.samples and self.is_running:  # `write` may add to them meanwhile
            piece = bytes(item.samples[:limit])
            del item.samples[:limit]
            await self._send(AudioKind.AUDIO, piece, received_ns=item.received_ns)

    async def _send(self, kind: AudioKind, data: bytes = b"", *, received_ns: int = 0) -> None:
        """Hand a record over to Kafka. `settled` runs when the record is durable or lost."""
        # A new producer could overtake the old one, which still holds our last records: wait for them (`AudioLog`).
        while self._generation != self._log.generation and len(self._tracker):
            await self._change()
            if not self.is_running:
                return
        self._generation = self._log.generation
        chunk = replace(self._template, kind=kind, sequence=self._sequence, position=self._next_position, data=data)
        self._sequence += 1
        self._next_position += chunk.samples
        ticket = self._tracker.add(self._next_position)
        span = self._spans.start(chunk, received_ns) if self._spans is not None and data else None
        if span is not None:
            chunk = replace(chunk, traceparent=traceparent_of(span))
        began_s = time.monotonic()

        def end_span(failure: BaseException | None, stored: RecordMetadata | None) -> None:
            if span is None:
                return
            if stored is not None:
                span.set_attribute("messaging.destination.partition.id", str(stored.partition))
                span.set_attribute("messaging.kafka.offset", stored.offset)
            if failure is not None:
                span.set_status(Status(StatusCode.ERROR, type(failure).__name__))
            span.end()

        try:
            future = await self._log.append(chunk)
        except BaseException as error:
            end_span(error, None)
            raise

        def settled(done: "asyncio.Future[RecordMetadata]") -> None:
            failure = asyncio.CancelledError() if done.cancelled() else done.exception()
            end_span(failure, done.result() if failure is None else None)
            if failure is not None:
                self._fail(failure)
                return
            metrics.ACK_LATENCY.observe(time.monotonic() - began_s, exemplar(span) if span is not None else None)
            metrics.STORED_BYTES.inc(len(data))
            self._waiting_bytes -= _CONTROL_BYTES if kind is not AudioKind.AUDIO else len(data)
            if ticket == 0 and self.phase is UplinkPhase.OPENING:  # the record is START or RESUME
                self.phase = UplinkPhase.FLOWING
            has_moved = self._tracker.settle(ticket)
            self._changed.set()
            if has_moved and self.is_running:
                self._on_durable(self._tracker.position)

        future.add_done_callback(settled)

    def _fail(self, failure: BaseException) -> None:
        if not self.is_running:
            return
        log.error("audio could not be stored: %r", failure)
        self.phase = UplinkPhase.FAILED
        self._changed.set()
        self._on_failure()


class AckTracker:
    """Finds the end of the durable audio, from the records of one connection, which become durable in any order."""

    def __init__(self, position: int) -> None:
        self.position = position  # samples per channel: the end of the durable prefix
        self._first_ticket = 0
        self._records: deque[tuple[int, bool]] = deque()  # where each ends, and whether it is durable

    def __len__(self) -> int:
        return len(self._records)

    def rebase(self, position: int) -> None:
        """Let the audio begin at `position`. Call this before the first audio; records without audio may be pending."""
        self.position = position

    def add(self, end: int) -> int:
        """Add a record whose audio ends at `end`; return its ticket."""
        self._records.append((end, False))
        return self._first_ticket + len(self._records) - 1

    def settle(self, ticket: int) -> bool:
        """Mark a record as durable; return True if `position` has moved."""
        end, _ = self._records[ticket - self._first_ticket]
        self._records[ticket - self._first_ticket] = (end, True)
        before = self.position
        while self._records and self._records[0][1]:
            self.position = max(self.position, self._records.popleft()[0])
            self._first_ticket += 1
        return self.position > before
