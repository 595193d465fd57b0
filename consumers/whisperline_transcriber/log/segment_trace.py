"""Trace a segment from the records that hold its audio to its final: its span, and when its audio arrived."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import use_span
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_runtime.tracing import SpanKind, context_of, links_to, tracer

_tracer = tracer(__name__)

MAX_RECORDS = 4_096  # per session; older records are forgotten, and segments that begin in them have no parent span
MAX_LINKS = 64


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """A record of audio_chunks, and the positions [start, end) of its audio at the session's rate."""

    offset: int
    start: int
    end: int
    arrived_s: float  # Kafka's timestamp, since the Unix epoch
    traceparent: str | None


class RecordOrigins:
    """The records that hold a session's undecided audio, in order; beyond `MAX_RECORDS` the oldest are forgotten."""

    def __init__(self) -> None:
        self._records: deque[RecordOrigin] = deque(maxlen=MAX_RECORDS)

    def append(self, origin: RecordOrigin) -> None:
        """Append the next record."""
        self._records.append(origin)

    def drop_before(self, position: int) -> None:
        """Forget the records whose audio ends before `position`."""
        while self._records and self._records[0].end <= position:
            self._records.popleft()

    def at(self, position: int) -> RecordOrigin | None:
        """Return the record that holds `position`, None if it was forgotten. The last record holds the end position."""
        if not self._records or position < self._records[0].start:
            return None
        return next((record for record in self._records if record.end > position), self._records[-1])

    def between(self, start: int, end: int) -> Iterator[RecordOrigin]:
        """Yield the records that begin after `start` and before `end`."""
        return (record for record in self._records if start < record.start < end)


class SegmentTrace:
    """The span of one segment, from its opening to its durable final.

    Its parent is the context of the record that holds the segment's first sample, so a segment belongs to the trace
    that the gateway began for that record. With tracing off, the span is a no-op and only `origin` is kept.
    """

    def __init__(self, session_id: str, partition: int, segment_index: int, origin: RecordOrigin | None) -> None:
        self.origin = origin
        self.has_partial = False  # True once a partial of the segment was published
        self.span = _tracer.start_span(
            "segment", context=context_of(origin.traceparent if origin else None), kind=SpanKind.CONSUMER
        )
        if self.span.is_recording():
            self.span.set_attributes(
                {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": AUDIO_CHUNKS,
                    "messaging.destination.partition.id": str(partition),
                    "whisperline.session.id": session_id,
                    "whisperline.segment.index": segment_index,
                }
            )
            if origin is not None:
                self.span.set_attribute("messaging.kafka.offset", origin.offset)

    def link(self, origins: Iterable[RecordOrigin]) -> None:
        """Link the span to the contexts of the segment's later records, at most `MAX_LINKS` of them."""
        if self.span.is_recording():
            for link in links_to([origin.traceparent for origin in origins][:MAX_LINKS]):
                self.span.add_link(link.context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this span the parent of the spans that are started in the body."""
        # An exception's text and traceback could hold spoken words, so neither is recorded.
        with use_span(self.span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    def end(self) -> None:
        """End the span."""
        self.span.end()
