"""Tools of the gateway's tests: a gateway on a real socket, a client, and a pen for the transcriber's part.

What the gateway asks of the log is read from the log, and events are written to it as contracts/ says. Only the process
that would do so, the transcriber, is not needed here.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Event,
    Final,
    Finalized,
    Partial,
    Resumed,
    SegmentEnd,
    SessionEnd,
    SpeechStarted,
    UtteranceEnd,
    encode_event,
)
from whisperline_contracts.topics import TRANSCRIPTIONS
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.http.app import create_app
from whisperline_gateway.http.server import Server, server_config
from whisperline_gateway.settings import Settings
from whisperline_local import Stack
from whisperline_runtime.probes import Probes
from whisperline_runtime.process import Stop

PATIENCE_S = 30.0
TASKS = ("session", "write", "uplink", "detached", "events", "replace", "stop server")  # how the gateway's are named

Message = dict[str, Any]


def settings(**changes: object) -> Settings:
    """Return settings that fit a test, with some of them changed."""
    chosen: dict[str, Any] = {
        "database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        "token_secret": SecretStr("the secret of the tests"),
        "port": 0,
        "drain_timeout_s": 1,
        **changes,
    }
    return Settings(**chosen)


class Scribe:
    """Reads what gateways write to the log, and writes events as the transcriber does."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        self._consumer = consumer
        self._producer = producer
        self._records: dict[str, list[AudioChunk]] = defaultdict(list)
        self._news = asyncio.Condition()

    async def read(self) -> None:
        """Collect records for ever."""
        async for record in self._consumer:
            chunk = AudioChunk.from_record(record.headers, record.value)
            async with self._news:
                self._records[chunk.session_id].append(chunk)
                self._news.notify_all()

    def records(self, session_id: str) -> list[AudioChunk]:
        """Return a session's records so far."""
        return list(self._records[session_id])

    async def first_of_client(self, client_id: str) -> AudioChunk:
        """Wait for the first record of a client."""

        def found() -> list[AudioChunk]:
            return [chunks[0] for chunks in self._records.values() if chunks and chunks[0].client_id == client_id]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(found)
        return found()[0]

    async def until(self, session_id: str, kind: AudioKind, count: int = 1) -> AudioChunk:
        """Wait for a session's record of a kind; return it."""

        def found() -> list[AudioChunk]:
            return [chunk for chunk in self._records[session_id] if chunk.kind is kind]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    async def stored(self, session_id: str, position: int) -> None:
        """Wait until the audio before a position has been read."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(
                lambda: any(chunk.position + chunk.samples >= position for chunk in self._records[session_id])
            )

    async def publish(self, chunk: AudioChunk, *events: Event) -> None:
        """Publish events to the reply partition of a record."""
        for event in events:
            await self.write(chunk.reply_partition, encode_event(event), chunk.session_id)

    async def write(
        self, partition: int, value: bytes, key: str = "key", headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """Publish bytes."""
        await self._producer.send_and_wait(
            TRANSCRIPTIONS, value, key=key.encode(), partition=partition, headers=list(headers)
        )


class Listener:
    """A client that reads all the time and keeps what it has read."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str, **options: Any) -> "Listener":
        """Connect to a URL of a gateway."""
        return cls(await connect(url, compression=None, proxy=None, max_size=None, close_timeout=2, **options))

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                async with self._news:
                    self.messages.append(json.loads(text))
                    self._news.notify_all()
        except ConnectionClosed:
            pass
        async with self._news:
            self._news.notify_all()

    @property
    def session_id(self) -> str:
        """The id of the session."""
        assert self.socket.response is not None
        return self.socket.response.headers["dg-request-id"]

    async def send(self, data: bytes) -> None:
        """Send a binary frame."""
        await self.socket.send(data)

    async def say(self, kind: str) -> None:
        """Send a control message."""
        await self.socket.send(json.dumps({"type": kind}))

    def all(self, kind: str) -> list[Message]:
        """Return the messages of a type so far."""
        return [message for message in self.messages if message["type"] == kind]

    async def next(self, kind: str, count: int = 1, **fields: object) -> Message:
        """Wait for the message of a type, with these fields; return it."""

        def found() -> list[Message]:
            return [message for message in self.all(kind) if fields.items() <= message.items()]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count or self._reading.done())
        assert len(found()) >= count, f"closed without {kind}: {self.socket.close_code} {self.messages[-3:]}"
        return found()[count - 1]

    async def acked(self, position: int) -> Message:
        """Wait until the audio before a position is durable; return the Ack."""

        def found() -> Message | None:
            return next((message for message in self.all("Ack") if message["position"] >= position), None)

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: found() is not None or self._reading.done())
        ack = found()
        assert ack is not None, f"closed: {self.socket.close_code} {self.messages[-3:]}"
        return ack

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the close; return its code, and the code of the Error before it."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._reading)
        numbers = [message["sequence_id"] for message in self.messages if message["sequence_id"] >= 0]
        assert numbers == list(range(len(numbers)))
        errors = self.all("Error")
        return self.socket.close_code, errors[-1]["code"] if errors else None

    async def vanish(self) -> None:
        """Drop the connection without a word."""
        self.socket.transport.abort()
        await self.closed()


class RunningGateway:
    """A gateway on a port of its own."""

    def __init__(self, gateway: Gateway, server: Server, stop: Stop, serving: "asyncio.Task[None]") -> None:
        self.gateway = gateway
        self.server = server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self._stop = stop
        self._serving = serving

    def url(self, **query: object) -> str:
        """Return the URL of /v1/listen with a query; 16 kHz linear16 unless it says otherwise."""
        values: dict[str, object] = {"encoding": "linear16", "sample_rate": 16_000, **query}
        text = "&".join(f"{name}={value}" for name, value in values.items() if value is not None)
        return f"ws://127.0.0.1:{self.port}/v1/listen?{text}"

    async def listen(self, **query: object) -> Listener:
        """Connect."""
        return await Listener.connect(self.url(**query))

    async def stop(self) -> None:
        """Do what SIGTERM does, and wait until it is done."""
        self._stop.set()
        await self._serving


class StartGateway(Protocol):
    """Starts gateways, with any settings."""

    async def __call__(self, **changes: object) -> RunningGateway: ...


@asynccontextmanager
async def run_gateway(stack: Stack, **changes: object) -> AsyncIterator[RunningGateway]:
    """Run a gateway on any free port."""
    config = settings(kafka_bootstrap=stack.kafka_bootstrap, database_url=SecretStr(stack.database_url), **changes)
    stop = Stop()
    async with Gateway.open(config, stop) as gateway:
        app = create_app(gateway, Probes(lambda: gateway.problem))
        server = Server(server_config(app, config), gateway.registry, stop)
        serving = asyncio.create_task(server.run_until_stopped())
        await until(lambda: server.started)
        running = RunningGateway(gateway, server, stop, serving)
        yield running
        await running.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - that is what this is for
            await asyncio.sleep(0.01)


class Ids(Protocol):
    """What an event takes from the record that it answers."""

    @property
    def session_id(self) -> str: ...
    @property
    def connection_id(self) -> str: ...
    @property
    def client_id(self) -> str: ...


def final(of: Ids, index: int, text: str = "words", reason: str = "silence") -> Final:
    """Return a final."""
    return Final(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        segment_index=index, start_ms=1000 * index, end_ms=1000 * index + 900, text=text, words=(), language="en",
        confidence=0.9, reason=SegmentEnd(reason), model="tiny.en", model_version="1",
        position=16 * (1000 * index + 900),
    )  # fmt: skip


def partial(of: Ids, index: int, text: str) -> Partial:
    """Return a partial whose first three letters are stable."""
    return Partial(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        segment_index=index, start_ms=0, end_ms=500, text=text, stable_text=text[:3],
    )  # fmt: skip


def resumed(of: Ids, position: int, next_segment_index: int) -> Resumed:
    """Return the answer to a RESUME."""
    return Resumed(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        position=position, next_segment_index=next_segment_index,
    )  # fmt: skip


def speech_started(of: Ids, index: int, start_ms: int) -> SpeechStarted:
    """Return the start of speech."""
    return SpeechStarted(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        segment_index=index, start_ms=start_ms,
    )  # fmt: skip


def utterance_end(of: Ids, last_word_end_ms: int) -> UtteranceEnd:
    """Return the end of an utterance."""
    return UtteranceEnd(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        last_word_end_ms=last_word_end_ms,
    )  # fmt: skip


def finalized(of: Ids, position_ms: int) -> Finalized:
    """Return the answer to a FINALIZE that found no speech."""
    return Finalized(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        position_ms=position_ms,
    )  # fmt: skip


def session_end(
    of: Ids, segment_count: int, duration_ms: int, reason: Literal["closed", "idle", "unknown", "refused"] = "closed"
) -> SessionEnd:
    """Return the end of a session."""
    return SessionEnd(
        session_id=of.session_id, connection_id=of.connection_id, client_id=of.client_id, time_ms=0,
        segment_count=segment_count, duration_ms=duration_ms, reason=reason,
        message="language: this model has no de, only en." if reason == "refused" else "",
    )  # fmt: skip


def end_at(chunk: AudioChunk, segment_count: int) -> SessionEnd:
    """Return the end of a session where a record stands."""
    return session_end(chunk, segment_count, chunk.position * 1000 // chunk.sample_rate)
