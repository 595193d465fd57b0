"""Trace contexts pass through Kafka's headers, and tracing costs nothing when it is off."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from whisperline_runtime import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_context_survives_the_headers() -> None:
    """A context written to headers can be read back, so the next process continues the trace."""
    span = TracerProvider().get_tracer("test").start_span("send")
    headers = tracing.inject([("schema", b"1.0")], span)
    assert headers[0] == ("schema", b"1.0")
    traceparent = tracing.extract(headers)
    assert traceparent == tracing.traceparent_of(span)
    child = TracerProvider().get_tracer("test").start_span("process", tracing.context_of(traceparent))
    assert child.get_span_context().trace_id == span.get_span_context().trace_id


def test_without_the_sdk_a_context_that_came_in_goes_out() -> None:
    """With tracing off, an incoming context is passed on, so a gateway does not cut its client's trace."""
    span = tracing.tracer("test").start_span("send", tracing.context_of(PARENT))
    assert not span.is_recording()
    assert tracing.traceparent_of(span) == PARENT
    assert tracing.exemplar(span) is None


@given(st.one_of(st.none(), st.text(max_size=80)))
def test_a_traceparent_that_cannot_be_read_is_none(text: str | None) -> None:
    """A malformed `traceparent` from a client is ignored."""
    assert tracing.links_to([text]) == []
    assert tracing.traceparent_of(tracing.tracer("test").start_span("x", tracing.context_of(text))) is None


def test_headers_without_a_context_have_none() -> None:
    """Headers without a context, as in records of older releases, give None."""
    assert tracing.extract([("schema", b"1.0"), ("traceparent", None)]) is None
    assert tracing.inject([("schema", b"1.0")]) == [("schema", b"1.0")]


def test_links_name_the_contexts_in_order() -> None:
    """Links name the given contexts in order."""
    (link,) = tracing.links_to([None, PARENT])
    assert format(link.context.trace_id, "032x") == PARENT[3:35]


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    """Without an endpoint the SDK is not imported."""
    program = (
        "import sys; from whisperline_runtime import tracing\n"
        "with tracing.configured('example') as exports: pass\n"
        "assert not exports; print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'grpc'))])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env={"PATH": ""}, check=True, capture_output=True, text=True
    )
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
def test_it_can_be_switched_off_beside_an_endpoint(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """OpenTelemetry's own variables switch tracing off although an endpoint is set."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv(*variable.split("="))
    with tracing.configured("example") as exports:
        assert not exports
