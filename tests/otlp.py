"""Receive OpenTelemetry's protocol (OTLP over gRPC), and keep the spans and logs that processes send.

The messages and services are those that OpenTelemetry publishes (opentelemetry-proto), so what is accepted here is
accepted by a collector.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

POLL_S = 0.05
# Processes export this often; OpenTelemetry's default of 5 s would only make tests wait.
EXPORT_EVERY_MS = 200


@dataclass(frozen=True)
class Context:
    """The ids that identify a span."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The context as W3C Trace Context writes it, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass(frozen=True)
class Span:
    """A span as received. Ids are hexadecimal, times are nanoseconds since the Unix epoch."""

    context: Context
    parent_id: str | None
    name: str
    kind: str  # SERVER, CLIENT, PRODUCER, CONSUMER or INTERNAL
    service: str
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    links: Sequence[Context]
    start_ns: int
    end_ns: int
    has_failed: bool

    @classmethod
    def read(cls, sent: trace_pb2.Span, service: str) -> "Span":
        """Return the span that a protobuf message describes."""
        return cls(
            context=Context(sent.trace_id.hex(), sent.span_id.hex()),
            parent_id=sent.parent_span_id.hex() or None,
            name=sent.name,
            kind=trace_pb2.Span.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
            service=service,
            attributes=attributes_of(sent.attributes),
            events=tuple((event.name, attributes_of(event.attributes)) for event in sent.events),
            links=tuple(Context(link.trace_id.hex(), link.span_id.hex()) for link in sent.links),
            start_ns=sent.start_time_unix_nano,
            end_ns=sent.end_time_unix_nano,
            has_failed=sent.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        )


def attributes_of(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """Return attributes as Python values."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> Any:
    """Return an attribute's value; arrays become lists."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind) if kind is not None else None


class Receiver:
    """The spans and logs received so far, and queries on them. Exports arrive in other threads."""

    def __init__(self) -> None:
        self.port = 0  # on the loopback; set once the receiver listens
        self.spans: list[Span] = []
        self.log_texts: list[str] = []  # each export of logs, as protobuf prints it

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a process send its spans here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": str(EXPORT_EVERY_MS),
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        }

    def named(self, name: str, attributes: Mapping[str, object] | None = None) -> list[Span]:
        """Return the spans with this name that have at least these attributes."""
        wanted = (attributes or {}).items()
        return [
            span
            for span in list(self.spans)
            if span.name == name and all(span.attributes.get(key) == value for key, value in wanted)
        ]

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace in the order in which they started."""
        return sorted(
            (span for span in list(self.spans) if span.context.trace_id == trace_id), key=lambda s: s.start_ns
        )

    def children(self, parent: Span) -> list[Span]:
        """Return the spans whose parent this is, in the order in which they started."""
        return [span for span in self.trace(parent.context.trace_id) if span.parent_id == parent.context.span_id]

    def parent(self, child: Span) -> Span | None:
        """Return a span's parent, or None if it has none or the parent was not received."""
        found = (span for span in self.trace(child.context.trace_id) if span.context.span_id == child.parent_id)
        return next(found, None)

    async def until(self, condition: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
        """Wait until `condition` holds. Raises a `TimeoutError` that names `what` is missing."""
        deadline_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline_s:
                names = sorted({f"{span.service}: {span.name}" for span in list(self.spans)})
                raise TimeoutError(f"{limit_s:.0f} s passed without {what}; there are {names}")
            await asyncio.sleep(POLL_S)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive on a free port of the loopback until the body ends."""
    receiver = Receiver()

    class Traces(TraceServiceServicer):
        def Export(  # noqa: N802 - as the protocol names it
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            for resource in request.resource_spans:
                service = str(attributes_of(resource.resource.attributes).get("service.name"))
                receiver.spans += [Span.read(sent, service) for scope in resource.scope_spans for sent in scope.spans]
            return ExportTraceServiceResponse()

    class Logs(LogsServiceServicer):
        def Export(  # noqa: N802 - as the protocol names it
            self, request: ExportLogsServiceRequest, context: grpc.ServicerContext
        ) -> ExportLogsServiceResponse:
            receiver.log_texts.append(str(request))
            return ExportLogsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    # protoc's gRPC plugin writes no types for these two.
    add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call]
    add_LogsServiceServicer_to_server(Logs(), server)  # type: ignore[no-untyped-call]
    receiver.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver
    finally:
        server.stop(grace=1).wait()
