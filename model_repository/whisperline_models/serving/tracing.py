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

import json
import time
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

SERVICE_NAME = "whisperline-triton"
FLUSH_LIMIT_MS = 2_000  # that the end of the process may wait for a collector
RPC = {
    "rpc.system": "grpc",
    "rpc.service": "inference.GRPCInferenceService",
    "rpc.method": "ModelStreamInfer",
}


def provider_from_environment(version: str) -> TracerProvider:
    """Return a provider that exports to the endpoint in the environment, in batches and from a thread of its own."""
    # Resource.create puts OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES over these.
    resource = Resource.create({"service.name": SERVICE_NAME, "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Begins a span for each request."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider, self._version = provider, version
        self._tracer = provider.get_tracer("whisperline.whisper", version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, parameters: str) -> RequestSpan | None:
        """Begin the span of a request that has just come; None where it is not sampled.

        `parameters` are Triton's, as JSON: a server with `--grpc-header-forward-pattern=traceparent` puts that header
        of the gRPC metadata there.
        """
        carrier = {name: value for name, value in json.loads(parameters or "{}").items() if isinstance(value, str)}
        parent = self._propagator.extract(carrier)
        attributes = {**RPC, "whisperline.model.version": self._version}
        span = self._tracer.start_span("whisper", parent, SpanKind.SERVER, attributes)
        return RequestSpan(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Export what has ended, for as long as `FLUSH_LIMIT_MS`."""
        self._provider.force_flush(FLUSH_LIMIT_MS)
        self._provider.shutdown()


class RequestSpan:
    """The span of one request under way. Its children are made when it ends, from the request's timeline."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer, self._span = tracer, span
        # The engine's clock never goes back, a span's is the time of day: so much lies between them.
        self._offset_ns = time.time_ns() - time.monotonic_ns()

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
        span = self._span
        if isinstance(outcome, Exception):
            span.set_attribute("error.type", type(outcome).__name__)
            span.set_status(Status(StatusCode.ERROR))
        else:
            span.set_attribute("whisperline.tokens", len(outcome.tokens))
            span.set_attribute("whisperline.window_s", outcome.window_s)
        for peer in timeline.peers.values():
            if isinstance(peer, trace.SpanContext):
                span.add_link(peer)
        if timeline.started_s is not None:
            self._add_child("queue", timeline.queued_s, timeline.started_s, {})
        for each in timeline.stages:
            attributes = {
                "whisperline.window_s": each.attempt.window_s,
                "whisperline.temperature": each.attempt.temperature,
                "whisperline.units": each.units,
                "whisperline.batch.rows": each.rows,
            }
            self._add_child(each.stage.value, each.began_s, each.ended_s, attributes)
        span.end()

    def _add_child(self, name: str, began_s: float, ended_s: float, attributes: dict[str, float]) -> None:
        parent = trace.set_span_in_context(self._span)
        child = self._tracer.start_span(
            name, parent, attributes=attributes, start_time=int(began_s * 1e9) + self._offset_ns
        )
        child.end(int(ended_s * 1e9) + self._offset_ns)
