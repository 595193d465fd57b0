"""Write events, and the transcriber's own END records, to Kafka."""

import asyncio
import logging
from typing import Any

from aiokafka.errors import KafkaError
from opentelemetry.trace import INVALID_SPAN, get_current_span
from whisperline_contracts import AudioChunk, Event, Partial, encode_event
from whisperline_contracts.topics import AUDIO_CHUNKS, TRANSCRIPTIONS
from whisperline_runtime.producer import DurableProducer
from whisperline_runtime.tracing import Span, SpanKind, Status, StatusCode, inject, tracer

from whisperline_transcriber import metrics

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

MAX_BEST_EFFORT = 2_000  # best-effort events in flight; beyond this, further ones are dropped


class Publisher:
    """Sends events through `producer`, either durably or, where losing one does no harm, as best effort."""

    def __init__(self, producer: DurableProducer) -> None:
        self._producer = producer
        self._best_effort: set[asyncio.Future[Any]] = set()
        self._reply_partitions: set[int] = set()

    async def send(self, event: Event, reply_partition: int) -> None:
        """Publish an event; return once it is durable."""
        span = _start_send_span(event, reply_partition)
        try:
            await self._producer.write(
                TRANSCRIPTIONS,
                event.session_id.encode(),
                encode_event(event),
                partition=reply_partition,
                headers=inject((), span),
            )
        finally:
            span.end()
        metrics.EVENTS.labels(event.type).inc()

    async def send_best_effort(self, event: Event, reply_partition: int) -> bool:
        """Publish an event that may be lost; return False if it was dropped at once."""
        if len(self._best_effort) >= MAX_BEST_EFFORT:
            _count_partial(event, "shed_kafka")
            return False
        span = _start_send_span(event, reply_partition)
        try:
            future = await self._producer.send(
                TRANSCRIPTIONS,
                event.session_id.encode(),
                encode_event(event),
                partition=reply_partition,
                headers=inject((), span),
            )
        except KafkaError as error:  # the producer's buffer is full: the broker has been away for a while
            span.set_status(Status(StatusCode.ERROR, repr(error)))
            span.end()
            _count_partial(event, "shed_kafka")
            return False

        def done(future: "asyncio.Future[Any]") -> None:
            self._best_effort.discard(future)
            if future.cancelled() or future.exception() is not None:
                span.set_status(Status(StatusCode.ERROR, "not sent"))
                _count_partial(event, "shed_kafka")
            else:
                _count_partial(event, "sent")
            span.end()

        self._best_effort.add(future)
        future.add_done_callback(done)
        metrics.EVENTS.labels(event.type).inc()
        return True

    async def append_audio(self, chunk: AudioChunk, partition: int) -> None:
        """Append a record to a session's audio; return once it is durable."""
        key = chunk.session_id.encode()
        await self._producer.write(AUDIO_CHUNKS, key, chunk.data, partition=partition, headers=chunk.headers())

    async def has_reply_partition(self, partition: int) -> bool:
        """Return True if events can be sent to `partition`. Queries Kafka unless the partition is known to exist."""
        if partition not in self._reply_partitions:
            self._reply_partitions = await self._producer.partitions(TRANSCRIPTIONS)
        return partition in self._reply_partitions


def _count_partial(event: Event, outcome: str) -> None:
    if isinstance(event, Partial):
        metrics.PARTIALS.labels(outcome).inc()


def _start_send_span(event: Event, reply_partition: int) -> Span:
    # Events that belong to no segment are not part of any trace.
    if not get_current_span().get_span_context().is_valid:
        return INVALID_SPAN
    span = _tracer.start_span("transcriptions send", kind=SpanKind.PRODUCER)
    if span.is_recording():
        span.set_attributes(
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.destination.name": TRANSCRIPTIONS,
                "messaging.destination.partition.id": str(reply_partition),
                "whisperline.session.id": event.session_id,
                "whisperline.event.type": event.type,
            }
        )
    return span
