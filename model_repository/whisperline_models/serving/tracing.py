"""Make the spans of requests from the times that the engine recorded. Each version has a copy beside `model.py`.

    whisper            SERVER, child of the sender's `traceparent`; from the request's arrival to its answer
    ├── queue          until its first unit of work
    ├── encode         from the first piece of a window's encoding to the last
    ├── decode         from the first step over a window to the last; each attempt has its own encode and decode
    └── align          the times of words

The engine does units of other requests in between, so a span of `encode` is longer than the work for it. The attributes
`whisperline.units` and `whisperline.batch.rows` say how many units there were, and the most requests that shared one.
Links lead to those requests. No span contains words or tokens, nor the text of an error, which may quote options.

OpenTelemetry's own variables configure it: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`
and the others. `model.py` imports this module only where an endpoint is set.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from whisperline_models.engine.requests import Request
    from whisperline_models.engine.result import Result
    from whisperline_models.engine.timeline import Timeline

log = logging.getLogger(__name__)

SERVICE_NAME = "whisperline-triton"
MAX_ENDED = 1_024  # the most requests that have ended and have no spans yet
FLUSH_LIMIT_MS = 2_000  # the longest that the end of the process waits for a collector
RPC = {
    "rpc.system": "grpc",
    "rpc.service": "inference.GRPCInferenceService",
    "rpc.method": "ModelStreamInfer",
}


def provider_from_environment(version: str) -> TracerProvider:
    """Return a provider that exports to the endpoint in the environment, in batches, from a thread of its own."""
    # `create` reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES; attributes passed to it would override those.
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE_NAME, "service.version": version}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Begins a span for each request, and makes its child spans in a separate thread once the request has ended.

    Spans cost a fraction of a millisecond per request. The engine's thread, for which every request waits, must not
    spend it. If `MAX_ENDED` requests are waiting for their spans, those of further requests are lost.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider, self._version = provider, version
        self._tracer = provider.get_tracer("whisperline.whisper", version)
        self._propagator = TraceContextTextMapPropagator()
        self._ended: queue.Queue[EndedRequest | None] = queue.Queue(MAX_ENDED)
        self._thread = threading.Thread(target=self._make_spans, name="spans", daemon=True)
        self._thread.start()

    def begin(self, parameters: str) -> RequestSpan | None:
        """Begin the span of a request that has just arrived. Return None if it is not sampled.

        `parameters` are the request parameters from Triton, as JSON. With `--grpc-header-forward-pattern=traceparent`,
        Triton adds that header of the gRPC metadata to them.
        """
        carrier = {name: value for name, value in json.loads(parameters or "{}").items() if isinstance(value, str)}
        attributes = {**RPC, "whisperline.model.version": self._version}
        span = self._tracer.start_span("whisper", self._propagator.extract(carrier), SpanKind.SERVER, attributes)
        return RequestSpan(span, self._ended) if span.is_recording() else None

    def flush(self) -> None:
        """Wait until the spans of all ended requests have been made."""
        self._ended.join()

    def close(self) -> None:
        """Export the spans of ended requests, for up to `FLUSH_LIMIT_MS`."""
        self._ended.put(None)
        self._thread.join()
        self._provider.force_flush(FLUSH_LIMIT_MS)
        self._provider.shutdown()

    def _make_spans(self) -> None:
        while (ended := self._ended.get()) is not None:
            try:
                ended.make_spans(self._tracer)
            except Exception:  # of any kind: go on with the next request
                log.exception("the spans of a request were not made")
            self._ended.task_done()


class RequestSpan:
    """The span of one request in progress."""

    def __init__(self, span: trace.Span, ended: queue.Queue[EndedRequest | None]) -> None:
        self._span, self._ended = span, ended

    @property
    def context(self) -> trace.SpanContext:
        """The span's context, to which spans of other requests link."""
        return self._span.get_span_context()

    def describe(self, request: Request) -> None:
        """Add the request's lane and length as attributes; its text is left out."""
        self._span.set_attribute("whisperline.lane", request.lane)
        self._span.set_attribute("whisperline.audio.duration_ms", request.audio.size * 1000 // 16000)

    def end(self, outcome: Result | Exception, timeline: Timeline) -> None:
        """End the span with the request's outcome. The labels in the timeline's `peers` are span contexts."""
        if isinstance(outcome, Exception):
            self._span.set_attribute("error.type", type(outcome).__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        else:
            self._span.set_attribute("whisperline.tokens", len(outcome.tokens))
            self._span.set_attribute("whisperline.window_s", outcome.window_s)
        with contextlib.suppress(queue.Full):
            self._ended.put_nowait(EndedRequest(self._span, timeline, time.monotonic()))


@dataclass(frozen=True)
class EndedRequest:
    """A request that has ended, with all that is needed to make its spans."""

    span: trace.Span
    timeline: Timeline
    ended_s: float

    def make_spans(self, tracer: trace.Tracer) -> None:
        """Make the child spans of the request's span, and end it."""
        # The engine uses the monotonic clock, spans the time of day. This is the difference between the two.
        offset_ns = time.time_ns() - time.monotonic_ns()
        parent, timeline = trace.set_span_in_context(self.span), self.timeline

        def add_child(name: str, began_s: float, ended_s: float, attributes: dict[str, float]) -> None:
            start_ns = int(began_s * 1e9) + offset_ns
            child = tracer.start_span(name, parent, attributes=attributes, start_time=start_ns)
            child.end(int(ended_s * 1e9) + offset_ns)

        if timeline.started_s is not None:
            add_child("queue", timeline.queued_s, timeline.started_s, {})
        for each in timeline.stages:
            attributes = {
                "whisperline.window_s": each.attempt.window_s,
                "whisperline.temperature": each.attempt.temperature,
                "whisperline.units": each.units,
                "whisperline.batch.rows": each.rows,
            }
            add_child(each.stage.value, each.began_s, each.ended_s, attributes)
        for peer in timeline.peers.values():
            if isinstance(peer, trace.SpanContext):
                self.span.add_link(peer)
        self.span.end(int(self.ended_s * 1e9) + offset_ns)
