"""One trace follows a segment from the socket through every process to its row, and holds no spoken text."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile
import tritonclient.grpc.aio as triton
from otlp import Context, Receiver, Span, receiving
from stacks import local_settings
from streams import RATE, Samples, blocks, stored_rows
from websockets.asyncio.client import connect
from whisperline_client import pace
from whisperline_local import Stack
from whisperline_persistence import Store

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

PROCESSES = ("gateway", "transcriber", "triton", "persistence")
GATEWAY, TRANSCRIBER, TRITON, PERSISTENCE = SERVICES = tuple(f"whisperline-{name}" for name in PROCESSES)
CLIENT = Context("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
MAX_LINKS = 64
STAGES = {"queue", "encode", "decode", "align"}
SESSION, SEGMENT = "whisperline.session.id", "whisperline.segment.index"
WORDS_IN_A_ROW, TOKENS_IN_A_ROW = 3, 4  # shorter runs may be in a log by chance: "try again"
SAMPLE_BYTES = 48  # length of the pieces of audio that the test searches for


@dataclass(frozen=True)
class Session:
    """One session that was streamed: its id, its audio, and the messages that came back."""

    id: str
    samples: Samples
    messages: list[dict[str, Any]]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The partials and the finals."""
        return [message for message in self.messages if message["type"] == "Results"]

    @property
    def indices(self) -> list[int]:
        """The indices of the segments that have a final."""
        return [result["segment_index"] for result in self.results if result["is_final"]]

    @property
    def texts(self) -> list[str]:
        """The text of every result."""
        return [result["channel"]["alternatives"][0]["transcript"] for result in self.results]


@dataclass(frozen=True)
class Traced:
    """A stack that sends its spans to a receiver, and two complete sessions that went through it."""

    stack: Stack
    receiver: Receiver
    alone: Session  # of a client that sends no context
    continued: Session  # of one that sends `CLIENT`

    def segments(self, session: Session) -> list[Span]:
        """Return the span of each segment of a session."""
        found = [self.receiver.named("segment", {SESSION: session.id, SEGMENT: index}) for index in session.indices]
        assert [len(spans) for spans in found] == [1] * len(session.indices)
        return [span for (span,) in found]

    def stored_final(self, segment: Span) -> Span:
        """Return the span of the row of a segment."""
        (stored,) = self.receiver.named("store final", {key: segment.attributes[key] for key in (SESSION, SEGMENT)})
        return stored


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """The receiver of the stack's spans."""
    with receiving() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(
    receiver: Receiver, demo_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Traced]:
    """A stack with traces and the most detailed logs, after two sessions whose spans have all been received."""
    logging = {f"WHISPERLINE_{name.upper()}_LOG_LEVEL": "DEBUG" for name in PROCESSES}
    settings = local_settings(
        tmp_path_factory.mktemp("traced"),
        name="traces",
        gateways=1,
        service_env={name: {**receiver.environment, **logging} for name in PROCESSES},
    )
    samples, _ = soundfile.read(demo_clip, dtype="int16")
    async with Stack(settings) as stack:
        alone = await stream(stack, samples, {})
        continued = await stream(stack, samples, {"traceparent": CLIENT.traceparent})
        for session in (alone, continued):
            await receiver.until(partial(all_ended, receiver, session), f"every span of session {session.id}")
        yield Traced(stack, receiver, alone, continued)


async def stream(stack: Stack, samples: Samples, headers: dict[str, str]) -> Session:
    """Stream samples as if they were spoken now, with these headers in the handshake, to the end of the session."""
    address = stack.gateway_urls[0].replace("http://", "ws://")
    query = f"encoding=linear16&sample_rate={RATE}&language=en&interim_results=true"
    async with connect(f"{address}/v1/listen?{query}", additional_headers=headers, proxy=None) as socket:
        async for block in pace(blocks(samples), bytes_per_s=2 * RATE):
            await socket.send(block)
        await socket.send(json.dumps({"type": "CloseStream"}))
        messages = [json.loads(message) async for message in socket]
    assert messages[-1]["type"] == "Metadata"
    return Session(messages[-1]["request_id"], samples, messages)


def all_ended(receiver: Receiver, session: Session) -> bool:
    """Return True once the last spans of each process have been received."""
    ids = [{SESSION: session.id, SEGMENT: index} for index in session.indices]
    rows = [receiver.named(name, each) for name in ("segment", "store final") for each in ids]
    sockets = receiver.named("listen", {SESSION: session.id})
    batches = {link for batch in receiver.named("store batch") for link in batch.links}
    finals = [span for each in ids for span in receiver.named("store final", each)]
    stored = all(Context(final.context.trace_id, str(final.parent_id)) in batches for final in finals)
    return bool(ids) and bool(sockets) and all(rows) and stored


def the_child(receiver: Receiver, parent: Span, name: str) -> Span:
    """Return the only child with that name."""
    (child,) = (span for span in receiver.children(parent) if span.name == name)
    return child


def has(span: Span, kind: str, service: str, **attributes: object) -> bool:
    """Return True if a span is of this kind and service, and has these attributes of the messaging conventions."""
    wanted = {f"messaging.{key.replace('_', '.')}": value for key, value in attributes.items()}
    found = {key: span.attributes.get(key) for key in wanted}
    return (span.kind, span.service, found) == (kind, service, wanted)


async def test_one_trace_leads_from_the_socket_to_the_row(traced: Traced) -> None:
    """The spans of all four processes for a segment descend from the record that holds its first sample."""
    receiver = traced.receiver
    (listen,) = receiver.named("listen", {SESSION: traced.alone.id})
    assert (listen.kind, listen.service, listen.parent_id) == ("SERVER", GATEWAY, None)
    for segment in traced.segments(traced.alone):
        spans = receiver.trace(segment.context.trace_id)
        known = {span.context.span_id for span in spans}
        assert [span.name for span in spans if span.parent_id not in known] == ["audio_chunks send"]
        assert {span.service for span in spans} == set(SERVICES)
        assert not [span.name for span in spans if span.has_failed]

        record = receiver.parent(segment)
        assert record is not None
        assert has(record, "PRODUCER", GATEWAY, system="kafka", destination_name="audio_chunks", operation_type="send")
        assert listen.context in record.links
        assert has(segment, "CONSUMER", TRANSCRIBER, system="kafka", destination_name="audio_chunks")
        for key in ("messaging.destination.partition.id", "messaging.kafka.offset"):
            assert segment.attributes[key] == record.attributes[key]

        stored = traced.stored_final(segment)
        event = receiver.parent(stored)
        assert event is not None
        assert has(
            event, "PRODUCER", TRANSCRIBER, system="kafka", destination_name="transcriptions", operation_type="send"
        )
        assert event.parent_id == segment.context.span_id
        assert has(stored, "CONSUMER", PERSISTENCE, system="kafka", destination_name="transcriptions")
        processed = the_child(receiver, event, "transcriptions process")
        assert has(
            processed,
            "CONSUMER",
            GATEWAY,
            system="kafka",
            destination_name="transcriptions",
            operation_type="process",
        )
        assert the_child(receiver, processed, "send Results").service == GATEWAY


async def test_a_segment_links_to_the_records_that_hold_the_rest_of_its_audio(traced: Traced) -> None:
    """Links lead from a segment to records of its session, which are traces of their own."""
    records = {span.context for span in traced.receiver.named("audio_chunks send", {SESSION: traced.alone.id})}
    for segment in traced.segments(traced.alone):
        assert 1 <= len(segment.links) <= MAX_LINKS
        assert set(segment.links) <= records
        assert segment.context.trace_id not in {link.trace_id for link in segment.links}


async def test_a_segment_holds_what_was_decoded_and_decided_for_it(traced: Traced) -> None:
    """A segment's decodes continue in Triton with the model's stages, and it is decided before it is sent."""
    receiver = traced.receiver
    for segment in traced.segments(traced.alone):
        children = receiver.children(segment)
        decodes = [span for span in children if span.name == "decode"]
        assert {(span.kind, span.service) for span in decodes} == {("CLIENT", TRANSCRIBER)}
        assert {span.attributes["whisperline.lane"] for span in decodes} == {"partial", "final"}
        finals = [span for span in decodes if span.attributes["whisperline.lane"] == "final"]
        served = [the_child(receiver, decode, "whisper") for decode in finals if receiver.children(decode)]
        assert {span.service for span in served} == {TRITON}
        assert any({span.name for span in receiver.children(whisper)} == STAGES for whisper in served)
        assert any("whisperline.model.version" in span.attributes for span in finals)

        decide = the_child(receiver, segment, "decide")
        event = receiver.parent(traced.stored_final(segment))
        assert event is not None
        assert decide.end_ns <= event.end_ns


async def test_a_row_is_stored_in_a_batch_that_links_to_its_event(traced: Traced) -> None:
    """The trace of the batch holds the statements, and every final with a span has a row."""
    receiver = traced.receiver
    for segment in traced.segments(traced.alone):
        event = receiver.parent(traced.stored_final(segment))
        assert event is not None
        (batch,) = (span for span in receiver.named("store batch") if event.context in span.links)
        assert batch.service == PERSISTENCE
        statements = [span for span in receiver.trace(batch.context.trace_id) if is_statement(span)]
        assert statements
        assert {span.kind for span in statements} == {"CLIENT"}
    async with Store.open(traced.stack.database_url) as store:
        assert [row[0] for row in await stored_rows(store, traced.alone.id)] == traced.alone.indices


def is_statement(span: Span) -> bool:
    """Return True if a span is one of the database conventions, of before or after they became stable."""
    return not {"db.system", "db.system.name"}.isdisjoint(span.attributes)


async def test_a_clients_traceparent_is_the_parent(traced: Traced) -> None:
    """Connection, records and segments are all part of the trace that the client began."""
    receiver = traced.receiver
    (listen,) = receiver.named("listen", {SESSION: traced.continued.id})
    assert (listen.context.trace_id, listen.parent_id) == (CLIENT.trace_id, CLIENT.span_id)
    records = receiver.named("audio_chunks send", {SESSION: traced.continued.id})
    assert {(span.context.trace_id, span.parent_id) for span in records} == {(CLIENT.trace_id, CLIENT.span_id)}
    for segment in traced.segments(traced.continued):
        assert segment.context.trace_id == CLIENT.trace_id
        assert receiver.parent(segment) in records
        assert traced.stored_final(segment).context.trace_id == CLIENT.trace_id


async def test_nothing_that_was_said_is_in_spans_or_logs(traced: Traced) -> None:
    """Neither spans nor the most detailed logs hold runs of spoken words or tokens, or audio."""
    places = {f"span {span.service}: {span.name}": str(span) for span in traced.receiver.spans}
    places |= {path.name: path.read_text(errors="replace") for path in traced.stack.settings.logs.glob("*.log")}
    places |= {f"exported logs {number}": text for number, text in enumerate(traced.receiver.log_texts)}
    assert set(PROCESSES) <= {name.removesuffix(".log") for name in places}
    said = in_a_row([words(text) for text in (*traced.alone.texts, *traced.continued.texts)], WORDS_IN_A_ROW)
    tokens = in_a_row([await tokens_of(traced)], TOKENS_IN_A_ROW)
    audio = encodings_of(traced.alone.samples)
    assert said
    assert tokens
    found = [
        (place, sorted(leaked))
        for place, text in places.items()
        if (
            leaked := said & in_a_row([words(text)], WORDS_IN_A_ROW)
            | tokens & in_a_row([re.findall(r"\d+", text)], TOKENS_IN_A_ROW)
            | {encoded for encoded in audio if encoded in text}
        )
    ]
    assert found == []


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[a-z']+", text.lower())


def in_a_row(lists: Sequence[Sequence[str]], count: int) -> set[str]:
    """Return every run of `count` neighbours, joined."""
    return {" ".join(each[at : at + count]) for each in lists for at in range(len(each) - count + 1)}


def encodings_of(samples: Samples) -> set[str]:
    """Return a piece of the audio in the encodings in which bytes get into a log."""
    middle = len(samples) // 2
    piece = samples[middle : middle + SAMPLE_BYTES // 2].tobytes()
    numbers = samples[middle : middle + SAMPLE_BYTES // 2].tolist()
    # Base64 of a piece depends on where it begins, by up to two bytes; its first and last letters on its neighbours.
    in_base64 = {base64.b64encode(bytes(shift) + piece).decode()[4:-4] for shift in range(3)}
    return {piece.hex(), repr(piece)[2:-1], str(numbers)[1:-1], *in_base64}


async def tokens_of(traced: Traced) -> list[str]:
    """Return the tokens of the clip's transcript, as numbers in text."""
    samples = traced.alone.samples
    audio = triton.InferInput("audio", [1, len(samples)], "INT16")
    audio.set_data_from_numpy(samples.reshape(1, -1))
    options = triton.InferInput("options", [1, 1], "BYTES")
    options.set_data_from_numpy(np.array([[b'{"language": "en"}']], np.object_))

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "whisper", "inputs": [audio, options]}

    address = f"127.0.0.1:{traced.stack.settings.ports.triton_grpc}"
    async with triton.InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            answer = json.loads(bytes(result.as_numpy("result").reshape(-1)[0]))
            return [str(token) for token in answer["tokens"]]
    raise AssertionError("Triton gave no answer")
