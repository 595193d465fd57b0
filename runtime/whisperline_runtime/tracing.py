"""Trace with OpenTelemetry, configured by its own `OTEL_…` variables.

Without an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) the SDK is not even
imported: spans are the API's no-ops, and an incoming `traceparent` is still passed on. Build attributes only after
checking `span.is_recording()`.

Contexts travel as W3C `traceparent` (https://www.w3.org/TR/trace-context/), in Kafka's headers and gRPC's metadata.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from whisperline_runtime.errors import SettingsError

__all__ = [
    "Context",
    "Link",
    "Span",
    "SpanKind",
    "Status",
    "StatusCode",
    "Tracer",
    "configured",
    "context_of",
    "current_traceparent",
    "exemplar",
    "extract",
    "inject",
    "is_on",
    "links_to",
    "traceparent_of",
    "tracer",
]

HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


@contextmanager
def configured(service: str) -> Iterator[bool]:
    """Export spans while the context lasts; yield True if tracing is on. Remaining spans are flushed at the end.

    Raises `SettingsError` for an `OTEL_…` variable with an unsupported value.
    """
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if not endpoint or disabled or exporter == "none":
        yield False
        return
    if exporter != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {exporter} is not supported; use otlp or none")
    protocol_name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    if protocol_name not in os.environ:
        protocol_name = "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = os.environ.get(protocol_name, "") or "grpc"
    if protocol != "grpc":
        raise SettingsError(f"{protocol_name}: {protocol} is not supported; use grpc (port 4317 of a collector)")

    # Imported here because they cost 17 MB and a tenth of a second, which a process without traces should not pay.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(name))
    # Bounded: spans that do not fit into its queue (OTEL_BSP_MAX_QUEUE_SIZE) are dropped; nothing waits for room.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield True
    finally:
        provider.shutdown()


def is_on() -> bool:
    """Return True if spans are exported. Check this before work that only traces need."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def tracer(name: str) -> Tracer:
    """Return a module's tracer. It may be created before tracing is configured."""
    return trace.get_tracer(name)


def traceparent_of(span: Span) -> str | None:
    """Return a span's context as `traceparent`, or None if it has none."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span))
    return carrier.get(HEADER)


def current_traceparent() -> str | None:
    """Return the current span's context as `traceparent`, or None."""
    return traceparent_of(trace.get_current_span())


def context_of(traceparent: str | None) -> Context:
    """Return the context of `traceparent`, or an empty one if it is missing or malformed."""
    return _W3C.extract({HEADER: traceparent}, Context()) if traceparent else Context()


def links_to(traceparents: Iterable[str | None]) -> list[Link]:
    """Return a link to each context that can be read."""
    contexts = (trace.get_current_span(context_of(each)).get_span_context() for each in traceparents if each)
    return [Link(context) for context in contexts if context.is_valid]


def inject(headers: Iterable[tuple[str, bytes]], span: Span | None = None) -> list[tuple[str, bytes]]:
    """Return Kafka headers with the context of `span`, or of the current span, added if there is one."""
    traceparent = traceparent_of(span) if span is not None else current_traceparent()
    return [*headers, (HEADER, traceparent.encode())] if traceparent else list(headers)


def extract(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """Return the `traceparent` among Kafka headers, or None."""
    value = next((value for name, value in headers if name == HEADER), None)
    return value.decode("ascii", errors="replace") if value else None


def exemplar(span: Span | None = None) -> dict[str, str] | None:
    """Return the exemplar that links a measurement to `span` (or the current one), or None if it is not recorded."""
    span = span if span is not None else trace.get_current_span()
    if not span.is_recording():
        return None
    return {"trace_id": format(span.get_span_context().trace_id, "032x")}
