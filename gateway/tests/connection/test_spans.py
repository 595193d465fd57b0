"""What a trace shows of a connection, its records and its results, and what is in none."""

from collections.abc import Sequence

import pytest
from fakes import Scene
from harness import final
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode
from whisperline_contracts import AudioKind, Final
from whisperline_gateway import kafka
from whisperline_gateway.connection import connection, outbox, uplink
from whisperline_gateway.protocol.messages import Audio, SessionStarted
from whisperline_runtime import tracing

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Record spans, in this test alone: a provider of the whole process could not be taken away again."""
    recorded = Spans()
    for module in (connection, outbox, uplink, kafka):
        monkeypatch.setattr(module, "TRACER", recorded.tracer)
    monkeypatch.setattr(tracing, "is_on", lambda: True)
    return recorded


def trace_id(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return format(context.trace_id, "032x")


def span_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


async def stream(scene: Scene, traceparent: str | None = None) -> None:
    """Send audio, get a final, go."""
    async with scene.running(traceparent=traceparent) as (served, _):
        await scene.peer.until_sent(SessionStarted)
        scene.peer.say(Audio(bytes(3_200)))
        audio = await scene.log.until_kind(AudioKind.AUDIO)
        with kafka.TRACER.start_as_current_span("transcriptions process", tracing.context_of(audio.traceparent)):
            served.on_event(final(audio, 0, "confidential"))
        await scene.peer.until_sent(Final)
        scene.peer.disconnect()


async def test_each_record_of_audio_begins_a_trace_that_the_result_belongs_to(spans: Spans) -> None:
    """Its context is in the record, it links to the connection, and what is sent for it is in the same trace."""
    scene = Scene(acks=True)
    await stream(scene)
    listen, record, result = spans.one("listen"), spans.one("audio_chunks send"), spans.one("send Final")
    assert (listen.kind, record.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
    assert record.parent is None
    assert [link.context.span_id for link in record.links] == [span_id(listen)]
    audio = scene.log.chunks[scene.log.kinds.index(AudioKind.AUDIO)]
    assert (audio.traceparent or "").startswith(f"00-{trace_id(record)}-{span_id(record):016x}-")
    assert (scene.log.chunks[0].traceparent or "").startswith(f"00-{trace_id(listen)}-{span_id(listen):016x}-")
    assert trace_id(result) == trace_id(record) != trace_id(listen)
    assert result.parent is not None
    assert result.parent.span_id == span_id(spans.one("transcriptions process"))
    assert record.attributes is not None
    assert record.attributes["messaging.destination.name"] == "audio_chunks"
    assert record.attributes["messaging.kafka.offset"] == 1
    assert record.attributes["whisperline.session.id"] == "s"
    assert listen.attributes is not None
    assert listen.attributes["whisperline.connection.end"] == "disconnected"


async def test_a_clients_span_is_the_parent(spans: Spans) -> None:
    """The connection and every record continue the client's trace."""
    await stream(Scene(acks=True), CLIENT)
    for name in ("listen", "audio_chunks send"):
        span = spans.one(name)
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == CLIENT[3:-3]


async def test_spans_hold_no_text(spans: Spans) -> None:
    """Neither what was said nor a token is in any attribute or event."""
    scene = Scene(acks=True)
    await stream(scene)
    started = next(message for message in scene.peer.sent if isinstance(message, SessionStarted))
    for span in spans.all():
        assert "confidential" not in span.to_json()
        assert started.resume_token not in span.to_json()


async def test_a_record_that_is_lost_is_an_error_of_its_span_and_of_the_connection(spans: Spans) -> None:
    """Failures are found by their status."""
    scene = Scene(durable=False, acks=True)
    async with scene.running():
        await scene.log.until(1)
        scene.log.settle()
        scene.peer.say(Audio(bytes(3_200)))
        await scene.log.until(2)
        scene.log.futures[1].set_exception(RuntimeError("the broker is gone"))
    assert spans.one("audio_chunks send").status.status_code is StatusCode.ERROR
    assert spans.one("listen").status.description == "NOT_DURABLE"


async def test_without_an_exporter_a_clients_context_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records carry the client's context, or none, and no span is made for them."""
    # Another test of this process may have set a provider, which OpenTelemetry never takes back.
    for module in (connection, outbox, uplink, kafka):
        monkeypatch.setattr(module, "TRACER", NoOpTracer())
    monkeypatch.setattr(tracing, "is_on", lambda: False)
    with_client, without = Scene(acks=True), Scene(acks=True)
    await stream(with_client, CLIENT)
    await stream(without)
    assert {chunk.traceparent for chunk in with_client.log.chunks} == {CLIENT}
    assert {chunk.traceparent for chunk in without.log.chunks} == {None}
