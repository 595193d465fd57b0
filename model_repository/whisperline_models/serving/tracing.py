"""Spans of requests, made from the times that the engine noted. It is copied into each version, beside `model.py`.

    whisper            SERVER, child of the sender's `traceparent`; from the request's arrival to its answer
    ├── queue          until its first unit of work
    ├── encode         from the first piece of a window's encoding to the last
    ├── decode         from the first step over a window to the last; encode and decode come again with each attempt
    └── align          the times of words

Units of other requests lie in between, so a span of `encode` is longer than the work for it: `whisperline.units` and
`whisperline.batch.rows` tell how many units there were, and how many requests shared them at most. Links lead to those
requests. Nothing of what was said, words or tokens, is in a span; nor is the text of an error, which may quote options.

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
MAX_ENDED = 1_024  # requests that have ended and have no spans yet
FLUSH_LIMIT_MS = 2_000  # that the end of the process may wait for a collector
RPC = {
    "rpc.system": "grpc",
    "rpc.service": "inference.GRPCInferenceService",
    "rpc.method": "ModelStreamInfer",
}


def provider_from_environment(version: str) -> TracerProvider:
    """Return a provider that exports to the endpoint in the environment, in batches and from a thread of its own."""
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read here; attributes given to `create` would stand above them.
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE_NAME, "service.version": version}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Begins a span for each request, and makes its children in a thread of its own once the request has ended.

    Spans cost a fraction of a millisecond for each request: the engine's thread, which every request waits for, must
    not spend it. Where more than `MAX_ENDED` requests wait for their spans, those of the next are lost.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider, self._version = provider, version
        self._tracer = provider.get_tracer("whisperline.whisper", version)
        self._propagator = TraceContextTextMapPropagator()
        self._ended: queue.Queue[EndedRequest | None] = queue.Queue(MAX_ENDED)
        self._thread = threading.Thread(target=self._make_spans, name="spans", daemon=True)
        self._thread.start()

    def begin(self, parameters: str) -> RequestSpan | None:
        """Begin the span of a request that has just come; None where it is not sampled.

        `parameters` are Triton's, as JSON: a server with `--grpc-header-forward-pattern=traceparent` puts that header
        of the gRPC metadata there.
        """
        carrier = {name: value for name, value in json.loads(parameters or "{}").items() if isinstance(value, str)}
        attributes = {**RPC, "whisperline.model.version": self._version}
        span = self._tracer.start_span("whisper", self._propagator.extract(carrier), SpanKind.SERVER, attributes)
        return RequestSpan(span, self._ended) if span.is_recording() else None

    def flush(self) -> None:
        """Wait until all requests that have ended have their spans."""
        self._ended.join()

    def close(self) -> None:
        """Export what has ended, for as long as `FLUSH_LIMIT_MS`."""
        self._ended.put(None)
        self._thread.join()
        self._provider.force_flush(FLUSH_LIMIT_MS)
        self._provider.shutdown()

    def _make_spans(self) -> None:
        while (ended := self._ended.get()) is not None:
            try:
                ended.make_spans(self._tracer)
            except Exception:  # the next request's spans are none the worse for it
                log.exception("the spans of a request were not made")
            self._ended.task_done()


class RequestSpan:
    """The span of one request under way."""

    def __init__(self, span: trace.Span, ended: queue.Queue[EndedRequest | None]) -> None:
        self._span, self._ended = span, ended

    @property
    def context(self) -> trace.SpanContext:
        """What spans of other requests link to."""
        return self._span.get_span_context()

    def describe(self, request: Request) -> None:
        """Add what the request asks for, text left out."""
        self._span.set_attribute("whisperline.lane", request.lane)
        self._span.set_attribute("whisperline.audio.duration_ms", request.audio.size * 1000 // 16000)

    def end(self, outcome: Result | Exception, timeline: Timeline) -> None:
        """End the span with what came of the request; its timeline's peers are labelled with their contexts."""
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
    """What the spans of a request are made from, once it has ended."""

    span: trace.Span
    timeline: Timeline
    ended_s: float

    def make_spans(self, tracer: trace.Tracer) -> None:
        """Make the children of the request's span, and end it."""
        # The engine's clock never goes back, a span's is the time of day: so much lies between them.
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
