"""The receiver of traces that other tests use keeps spans unchanged."""

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from otlp import Context, receiving


def test_a_span_is_received_as_it_was_made() -> None:
    """Name, kind, service, parent, links, attributes and status come through OpenTelemetry's own exporter."""
    with receiving() as receiver:
        provider = TracerProvider(resource=Resource({SERVICE_NAME: "gateway"}))
        exporter = OTLPSpanExporter(endpoint=receiver.environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("listen", kind=SpanKind.SERVER) as parent:
            link = Link(parent.get_span_context(), {"whisperline.lane": "final"})
            child = tracer.start_span(
                "send", kind=SpanKind.PRODUCER, links=[link], attributes={"n": 3, "list": ["a", "b"]}
            )
            child.set_status(Status(StatusCode.ERROR))
            child.end()
        provider.shutdown()
        (listen,) = receiver.named("listen")
        (send,) = receiver.named("send", {"n": 3})
    context = parent.get_span_context()
    assert listen.context == Context(format(context.trace_id, "032x"), format(context.span_id, "016x"))
    assert (listen.kind, listen.service, listen.parent_id, listen.has_failed) == ("SERVER", "gateway", None, False)
    assert (send.kind, send.has_failed, send.attributes["list"]) == ("PRODUCER", True, ["a", "b"])
    assert list(send.links) == [listen.context]
    assert receiver.parent(send) == listen
    assert receiver.children(listen) == [send]
    assert receiver.trace(listen.context.trace_id) == [listen, send]
