"""The spans of a request: one for each stage, in the sender's trace, without a word of what was said."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from whisperline_models.engine.errors import OverloadedError, RequestCancelledError
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.timeline import MAX_PEERS, Timeline
from whisperline_models.engine.transcription import Engine
from whisperline_models.gate import Clip
from whisperline_models.serving.tracing import Tracing, provider_from_environment

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARAMETERS = json.dumps({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "priority": 3})
Submit = Callable[..., list[Result | Exception]]
SILENCE = Request(np.zeros(16_000, np.float32))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider, "3")
    yield tracing
    tracing.close()


@pytest.fixture
def submit(served: Engine, tracing: Tracing) -> Submit:
    """Submit a request as `model.py` does; the list holds its outcome once the engine has ended it."""

    def of(
        request: Request, parameters: str = PARAMETERS, is_cancelled: Callable[[], bool] = lambda: False
    ) -> list[Result | Exception]:
        span = tracing.begin(parameters)
        assert span is not None
        span.describe(request)
        timeline, outcomes = Timeline(span.context), list[Result | Exception]()

        def finish(outcome: Result | Exception) -> None:
            outcomes.append(outcome)
            span.end(outcome, timeline)

        served.submit(request, finish, is_cancelled, timeline=timeline)
        return outcomes

    return of


@pytest.fixture
def finish_all(served: Engine, tracing: Tracing) -> Callable[[], None]:
    """Let the engine serve the submitted requests, and wait until their spans are made."""

    def finish() -> None:
        while served.work():
            pass
        tracing.flush()

    return finish


def numbers(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_each_stage_is_a_span_of_the_senders_trace(
    served: Engine, submit: Submit, finish_all: Callable[[], None], exporter: InMemorySpanExporter, english: list[Clip]
) -> None:
    """Queue, encode, decode and align follow each other within the request, which is a child of the sender's span."""
    clip = next(clip for clip in english if 3 < clip.duration_s < 8)
    request = Request.parse(clip.read(), b'{"words": true, "lane": "partial"}', served.tokenizer.languages)
    outcomes = submit(request)
    finish_all()
    (outcome,) = outcomes
    assert isinstance(outcome, Result)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert list(spans) == ["queue", "encode", "decode", "align", "whisper"]
    whole = spans["whisper"]
    assert whole.kind is SpanKind.SERVER
    assert whole.parent is not None
    assert (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    children = [spans[name] for name in ("queue", "encode", "decode", "align")]
    assert {child.parent.span_id for child in children if child.parent} == {whole.context.span_id}
    times = [time for child in children for time in (child.start_time, child.end_time) if time is not None]
    assert times == sorted(times)
    assert whole.end_time is not None
    assert times[-1] <= whole.end_time
    assert numbers(whole)["whisperline.lane"] == "partial"
    assert numbers(whole)["whisperline.model.version"] == "3"
    assert numbers(whole)["whisperline.tokens"] == len(outcome.tokens)
    assert numbers(whole)["whisperline.window_s"] == outcome.window_s
    assert numbers(spans["encode"])["whisperline.units"] == served.encoder.n_pieces
    assert numbers(spans["decode"])["whisperline.units"] == len(outcome.tokens) + 2  # the prompt's first, and the end


def test_each_attempt_has_spans_of_its_own(
    served: Engine, submit: Submit, finish_all: Callable[[], None], exporter: InMemorySpanExporter
) -> None:
    """The spans of a text that is decoded again show the temperature and the window of each attempt."""
    noise = np.random.default_rng(0).normal(0, 0.2, 16_000 * 4).astype(np.float32)
    submit(Request(noise, temperatures=(0.0, 1.0)))
    finish_all()
    windows = [numbers(s)["whisperline.window_s"] for s in exporter.get_finished_spans() if s.name == "encode"]
    attempts = [numbers(s)["whisperline.temperature"] for s in exporter.get_finished_spans() if s.name == "decode"]
    assert windows == [4.5, 30][: len(windows)]
    assert attempts == [0.0, 0.0, 1.0][: len(attempts)]
    assert len(attempts) >= len(windows) >= 1


def test_requests_of_one_batch_are_linked(
    served: Engine, submit: Submit, finish_all: Callable[[], None], exporter: InMemorySpanExporter
) -> None:
    """A request's span links to the requests that shared a unit with it, and has the largest number of rows."""
    for _ in range(3):
        submit(SILENCE)
    finish_all()
    spans = [span for span in exporter.get_finished_spans() if span.name == "whisper"]
    assert len(spans) == 3
    for span in spans:
        others = {other.context.span_id for other in spans} - {span.context.span_id}
        assert {link.context.span_id for link in span.links} == others
    assert {numbers(s)["whisperline.batch.rows"] for s in exporter.get_finished_spans() if s.name == "decode"} == {3}


def test_links_are_bounded() -> None:
    """A request keeps a limited number of links, however many requests share its batches."""
    timelines = [Timeline(object()) for _ in range(3 * MAX_PEERS)]
    timelines[0].add_peers(timelines)
    assert len(timelines[0].peers) == MAX_PEERS


def test_an_error_is_told_by_its_kind(
    served: Engine, submit: Submit, finish_all: Callable[[], None], exporter: InMemorySpanExporter, tracing: Tracing
) -> None:
    """A refused or cancelled request has a span with its kind of error, but not the text, which may quote options."""
    submit(SILENCE, is_cancelled=lambda: True)
    finish_all()
    refused = tracing.begin("")
    assert refused is not None
    refused.end(OverloadedError("a secret"), Timeline(refused.context))
    tracing.flush()
    cancelled, full = exporter.get_finished_spans()
    for span, error in ((cancelled, RequestCancelledError), (full, OverloadedError)):
        assert numbers(span)["error.type"] == error.__name__
        assert span.status.status_code is StatusCode.ERROR
        assert not span.events
        assert "secret" not in span.to_json()
    assert full.parent is None  # without a context, the request begins a trace of its own


def test_what_was_said_is_in_no_span(
    served: Engine, submit: Submit, finish_all: Callable[[], None], exporter: InMemorySpanExporter, english: list[Clip]
) -> None:
    """No span contains words, tokens or the prompt."""
    clip = next(clip for clip in english if 3 < clip.duration_s < 8)
    options = b'{"prompt": "Featherstonehaugh", "words": true}'
    outcomes = submit(Request.parse(clip.read(), options, served.tokenizer.languages))
    finish_all()
    (result,) = outcomes
    assert isinstance(result, Result)
    shown = "".join(span.to_json() for span in exporter.get_finished_spans())
    said = [*(word.word for word in result.words if len(word.word) > 4), "Featherstonehaugh", str(list(result.tokens))]
    assert len(said) > 3
    assert [word for word in said if word in shown] == []


def test_a_request_that_is_not_sampled_has_no_timeline() -> None:
    """The engine records no times for a request that is not sampled."""
    assert Tracing(TracerProvider(sampler=ALWAYS_OFF), "3").begin(PARAMETERS) is None


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-0-0-00", 7])
def test_a_wrong_context_begins_a_trace(tracing: Tracing, traceparent: object) -> None:
    """An unreadable `traceparent` is ignored, and the request begins a trace of its own."""
    span = tracing.begin(json.dumps({"traceparent": traceparent}))
    assert span is not None
    assert span.context.is_valid


def test_the_result_does_not_depend_on_tracing(
    served: Engine, submit: Submit, finish_all: Callable[[], None], english: list[Clip]
) -> None:
    """A request has the same result with and without tracing."""
    clip = next(clip for clip in english if 3 < clip.duration_s < 8)
    request = Request.parse(clip.read(), b"{}", served.tokenizer.languages)
    outcomes = submit(replace(request))
    finish_all()
    assert outcomes == served.transcribe([request])


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "whisperline-triton"),
        ({"OTEL_SERVICE_NAME": "ours"}, "ours"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
    ],
)
def test_the_environment_names_the_service(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own variables override the default name."""
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    provider = provider_from_environment("3")
    assert provider.resource.attributes["service.name"] == name
    provider.shutdown()
