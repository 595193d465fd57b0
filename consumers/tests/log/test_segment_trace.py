"""A segment is one trace: from the record that holds its first sample, through Triton, to the header of its final."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import cast

import pytest
from in_memory import World, loud, record_of, silent
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY
from whisperline_contracts import AudioChunk, AudioKind, Event, Final, Partial, decode_event
from whisperline_runtime.probes import Probes
from whisperline_runtime.producer import DurableProducer
from whisperline_runtime.tracing import current_traceparent
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.log.segment_trace import MAX_LINKS, RecordOrigin, RecordOrigins
from whisperline_transcriber.log.session_task import SessionTask
from whisperline_transcriber.log.watermark import Watermark
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.session import Session

SAID = "unmistakable zebras gallop"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Record all spans. A process can have only one provider, so use that of another test if there is one."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    """The spans that have ended in this test."""
    exporter.clear()
    return exporter


class Producer:
    """Keeps events and their headers."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, dict[str, bytes]]] = []

    async def write(
        self, _: str, __: bytes, value: bytes, *, headers: Iterable[tuple[str, bytes]], partition: int
    ) -> None:
        self.events.append((decode_event(value), dict(headers)))

    async def send(
        self, topic: str, key: bytes, value: bytes, *, headers: Iterable[tuple[str, bytes]], partition: int
    ) -> "asyncio.Future[None]":
        await self.write(topic, key, value, headers=headers, partition=partition)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class StandIn:
    """A Triton that keeps the contexts of its requests; `errors` come first."""

    def __init__(self) -> None:
        self.contexts: list[str | None] = []
        self.errors: list[TritonError] = []

    async def languages(self, _: str) -> None:
        """Know no languages."""

    async def transcribe(self, _: Samples, __: Request, ___: Lane, ____: float) -> Transcript:
        self.contexts.append(current_traceparent())
        if self.errors:
            raise self.errors.pop(0)
        return Transcript(text=SAID, language="en", words=[], avg_logprob=0, model="whisper", version="7")


class Process:
    """A process with everything real that makes spans."""

    def __init__(self, settings: Settings) -> None:
        self.producer = Producer()
        self.triton = StandIn()
        self.world = World(settings)
        self.services = replace(
            self.world.services,
            publisher=Publisher(cast("DurableProducer", self.producer)),
            admission=Admission(cast("Triton", self.triton), settings),
        )

    async def say(self, chunks: list[AudioChunk], arrived_ms: int | None = None) -> None:
        """Take a session's records, and wait for all that comes of them."""
        first = chunks[0]
        segmentation = self.services.settings.segmentation(closing_ms=500)
        async with asyncio.TaskGroup() as tasks:
            task = SessionTask(
                Session.started(first, segmentation),
                None,
                partition=3,
                watermark=Watermark(0),
                services=self.services,
                spawn=lambda work: spawned.append(tasks.create_task(work)),
            )
            spawned: list[asyncio.Task[object]] = []
            running = asyncio.create_task(task.run())
            for offset, chunk in enumerate(chunks):
                task.append_record(chunk, record_of(chunk, offset, arrived_ms or int(time.time() * 1000)))
                await self.world.vad.run()
                while not running.done() and (task.is_busy or not all(each.done() for each in spawned)):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            running.cancel()


def traceparent(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def a_sentence(chunk: Callable[..., AudioChunk], pieces: int = 4) -> list[AudioChunk]:
    """Return a session of two seconds of speech in pieces, each with a context of its own from 1 on."""
    size = len(loud(2)) // pieces
    data = [loud(2)[at * size : (at + 1) * size] for at in range(pieces)]
    audio = [
        chunk(AudioKind.AUDIO, at * size // 2, piece, traceparent=traceparent(at + 1)) for at, piece in enumerate(data)
    ]
    return [chunk(AudioKind.START), *audio, chunk(AudioKind.FINALIZE)]


def by_name(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


async def test_a_segment_belongs_to_the_trace_of_its_first_sample(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """A segment's span is a child of its first record's, links to the later records, and is the parent of its work."""
    process = Process(settings())
    await process.say(a_sentence(chunk))
    (segment,) = by_name(spans, "segment")
    assert segment.parent is not None
    assert (segment.parent.trace_id, segment.parent.span_id) == (1, 1)
    assert segment.kind is SpanKind.CONSUMER
    assert [link.context.trace_id for link in segment.links] == [2, 3, 4]
    expected = {"messaging.kafka.offset": 1, "messaging.destination.partition.id": "3", "whisperline.segment.index": 0}
    assert segment.attributes is not None
    assert expected.items() <= dict(segment.attributes).items()
    children = [span for span in spans.get_finished_spans() if span.parent and span.parent.span_id == span_id(segment)]
    assert {span.name for span in children} == {"decode", "decide", "transcriptions send"}
    assert {span.context.trace_id for span in children if span.context} == {1}


async def test_the_context_goes_to_triton_and_into_the_event(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """Each request to Triton and each event carries the context of its own span."""
    process = Process(settings())
    await process.say(a_sentence(chunk))
    decodes = by_name(spans, "decode")
    assert [context.split("-")[2] for context in process.triton.contexts if context] == [
        f"{span_id(span):016x}" for span in decodes
    ]
    assert {(span.attributes or {})["whisperline.lane"] for span in decodes} == {"partial", "final"}
    sends = {f"{span_id(span):016x}" for span in by_name(spans, "transcriptions send")}
    in_segment = [(event, headers) for event, headers in process.producer.events if isinstance(event, Final | Partial)]
    assert len(in_segment) > 1
    for _, headers in in_segment:
        _, trace_id, parent_id, _ = headers["traceparent"].decode().split("-")
        assert int(trace_id, 16) == 1
        assert parent_id in sends


@pytest.mark.usefixtures("no_waits")
async def test_a_decode_that_failed_shows_its_errors(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """Each retry is an event of the decode span, and a refusal by Triton is its error status."""
    process = Process(settings(partials_in_flight=0))
    process.triton.errors = [
        TritonError("away", is_retriable=True),
        TritonError("no such language", is_retriable=False),
    ]
    await process.say(a_sentence(chunk))
    (decode,) = by_name(spans, "decode")
    assert [event.name for event in decode.events] == ["admitted", "retry"]
    assert decode.status.status_code is StatusCode.ERROR
    assert [event for event, _ in process.producer.events if isinstance(event, Final)] == []


async def test_no_span_holds_what_was_said(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """No span holds spoken text or audio."""
    process = Process(settings())
    await process.say(a_sentence(chunk))
    assert SAID in [event.text for event, _ in process.producer.events if isinstance(event, Final)]
    everything = " ".join(span.to_json() for span in spans.get_finished_spans())
    assert not any(word in everything for word in SAID.split())


async def test_finals_do_not_depend_on_contexts(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """With missing or malformed contexts the finals are the same, and each segment is the root of its own trace."""
    finals = []
    for context in (traceparent(1), None, "garbage"):
        process = Process(settings())
        await process.say([replace(each, traceparent=context) for each in a_sentence(chunk)])
        finals += [
            event.model_copy(update={"time_ms": 0}) for event, _ in process.producer.events if isinstance(event, Final)
        ]
    assert len(finals) == 3
    assert finals[0] == finals[1] == finals[2]
    assert [segment.parent is None for segment in by_name(spans, "segment")] == [False, True, True]


async def test_a_segment_that_closes_before_it_opened_has_its_own_index(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """A FINALIZE in the first frames of speech closes a segment that had not opened, and the span has its index."""
    process = Process(settings())
    audio = [chunk(AudioKind.AUDIO, 0, loud(0.07)), chunk(AudioKind.AUDIO, 1_120, loud(0.07))]
    finalize = chunk(AudioKind.FINALIZE)
    await process.say([chunk(AudioKind.START), audio[0], finalize, audio[1], finalize])
    indices = [(segment.attributes or {})["whisperline.segment.index"] for segment in by_name(spans, "segment")]
    assert indices == [0, 1]


async def test_a_segment_has_a_bounded_number_of_links(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """A segment's span has a bounded number of links, however many records hold its audio."""
    process = Process(settings())
    await process.say(a_sentence(chunk, pieces=200))
    (segment,) = by_name(spans, "segment")
    assert len(segment.links) == MAX_LINKS


async def test_latencies_are_counted_from_the_arrival_of_the_audio(
    spans: InMemorySpanExporter, settings: Callable[..., Settings], chunk: Callable[..., AudioChunk]
) -> None:
    """Latencies are measured from Kafka's timestamps, and each measurement names its trace."""
    names = (
        "whisperline_transcriber_first_partial_seconds_sum",
        "whisperline_transcriber_speech_end_to_final_seconds_sum",
    )
    labels: tuple[dict[str, str], ...] = ({}, {"priority": "live"})
    before = [REGISTRY.get_sample_value(*each) or 0 for each in zip(names, labels, strict=True)]
    process = Process(settings())
    await process.say(
        [*a_sentence(chunk)[:-1], chunk(AudioKind.AUDIO, 32_000, silent(1), traceparent=traceparent(9))],
        arrived_ms=int(time.time() * 1000) - 7_000,
    )
    after = [REGISTRY.get_sample_value(*each) or 0 for each in zip(names, labels, strict=True)]
    elapsed_s = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert all(7 <= each < 12 for each in elapsed_s)
    exposition = Probes(lambda: None).answer("/metrics", "application/openmetrics-text").body.decode()
    exemplars = [line for line in exposition.splitlines() if "speech_end_to_final" in line and "trace_id" in line]
    assert any(f'trace_id="{1:032x}"' in line for line in exemplars)


def test_a_record_is_found_by_the_position_that_it_holds() -> None:
    """A position is found in the record that holds it, the end in the last one, and dropped audio in none."""
    origins = RecordOrigins()
    records = [RecordOrigin(at, at * 100, (at + 1) * 100, 0.0, None) for at in range(5)]
    assert origins.at(0) is None
    for record in records:
        origins.append(record)
    assert [origins.at(position) for position in (0, 99, 100, 499, 500)] == [records[at] for at in (0, 0, 1, 4, 4)]
    assert list(origins.between(50, 300)) == records[1:3]
    origins.drop_before(250)
    assert origins.at(199) is None
    assert origins.at(200) == records[2]
