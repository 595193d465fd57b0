"""Real Kafka and PostgreSQL, gateways that listen on real sockets, and a pen for the transcriber's part.

What the gateway asks of the log is read from the log, and events are written to it as contracts/ says: only the
process that would do so, the transcriber, is not needed here.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Event,
    Final,
    Partial,
    Resumed,
    SegmentEnd,
    SessionEnd,
    encode_event,
)
from whisperline_contracts.topics import AUDIO_CHUNKS, TRANSCRIPTIONS
from whisperline_gateway.app import create_app
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.server import Server, server_config
from whisperline_gateway.settings import Settings
from whisperline_local import LocalSettings, Stack
from whisperline_persistence import Store

CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 30.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka and PostgreSQL, with an empty, migrated database."""
    settings = LocalSettings(
        state_dir=tmp_path_factory.mktemp("stack"), cache_dir=CHECKOUT / ".state" / "cache", port_offset=12_000
    )
    async with Stack(settings, services=("kafka", "migrate")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(stack: Stack) -> AsyncIterator[Store]:
    """The database, to write what persistence would."""
    async with Store.open(stack.database_url) as opened:
        yield opened


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

    async def until(self, session_id: str, kind: AudioKind, count: int = 1) -> AudioChunk:
        """Wait for the record of that kind; return it."""

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

    async def tell(self, chunk: AudioChunk, *events: Event) -> None:
        """Publish events to the reply partition of a record."""
        for event in events:
            await self.write(chunk.reply_partition, encode_event(event), chunk.session_id)

    async def write(self, partition: int, value: bytes, key: str = "key") -> None:
        """Publish bytes."""
        await self._producer.send_and_wait(TRANSCRIPTIONS, value, key=key.encode(), partition=partition)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scribe(stack: Stack) -> AsyncIterator[Scribe]:
    """A scribe that has read the log from its beginning."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap)
    async with consumer, producer:
        partitions = consumer.partitions_for_topic(AUDIO_CHUNKS) or await _partitions(producer)
        consumer.assign([TopicPartition(AUDIO_CHUNKS, partition) for partition in partitions])
        opened = Scribe(consumer, producer)
        reading = asyncio.create_task(opened.read())
        yield opened
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _partitions(producer: AIOKafkaProducer) -> Iterable[int]:
    return await producer.partitions_for(AUDIO_CHUNKS)


class RunningGateway:
    """A gateway on a port of its own."""

    def __init__(self, gateway: Gateway, server: Server, serving: "asyncio.Task[None]") -> None:
        self.gateway = gateway
        self.server = server
        self.serving = serving
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    def url(self, **query: object) -> str:
        """Return the URL of /v1/listen with a query; 16 kHz linear16 unless it says otherwise."""
        values: dict[str, object] = {"encoding": "linear16", "sample_rate": 16_000, **query}
        text = "&".join(f"{name}={value}" for name, value in values.items() if value is not None)
        return f"ws://127.0.0.1:{self.port}/v1/listen?{text}"

    async def listen(self, **query: object) -> "Listener":
        """Connect."""
        return await Listener.connect(self.url(**query))

    async def stop(self) -> None:
        """Do what SIGTERM does, and wait until it is done."""
        self.server.should_exit = True
        await self.serving


class Listener:
    """A client that reads all the time and keeps what it has read."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
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

    async def send(self, data: bytes) -> None:
        """Send a binary frame."""
        await self.socket.send(data)

    async def say(self, kind: str) -> None:
        """Send a control message."""
        await self.socket.send(json.dumps({"type": kind}))

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of a type so far."""
        return [message for message in self.messages if message["type"] == kind]

    async def next(self, kind: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for the message of a type, with these fields; return it."""

        def found() -> list[dict[str, Any]]:
            return [message for message in self.all(kind) if fields.items() <= message.items()]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count or self._reading.done())
        assert len(found()) >= count, f"closed without {kind}: {self.socket.close_code} {self.messages[-3:]}"
        return found()[count - 1]

    async def acked(self, position: int) -> dict[str, Any]:
        """Wait until the audio before a position is durable; return the Ack."""

        def found() -> dict[str, Any] | None:
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
        assert [message["sequence_id"] for message in self.messages if message["sequence_id"] >= 0] == list(
            range(sum(message["sequence_id"] >= 0 for message in self.messages))
        )
        errors = self.all("Error")
        return self.socket.close_code, errors[-1]["code"] if errors else None

    async def vanish(self) -> None:
        """Drop the connection without a word."""
        self.socket.transport.abort()
        await self.closed()

    async def session_id(self) -> str:
        """Return the id of the session."""
        return self.socket.response.headers["dg-request-id"]


@pytest.fixture
def listen_at() -> Callable[[str], Awaitable[Listener]]:
    """Connect to a gateway that is about to listen."""

    async def listen(url: str) -> Listener:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await Listener.connect(url)
                except OSError:
                    await asyncio.sleep(0.05)

    return listen


StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest_asyncio.fixture(loop_scope="session")
async def start_gateway(stack: Stack, scribe: Scribe) -> AsyncIterator[StartGateway]:
    """Start gateways, with any settings; all are stopped at the end, and must leave no task behind."""
    async with AsyncExitStack() as running:

        async def start(**settings: object) -> RunningGateway:
            return await running.enter_async_context(run_gateway(stack, **settings))

        before = asyncio.all_tasks()
        yield start
    left = {task for task in asyncio.all_tasks() - before if task.get_name().startswith(GATEWAY_TASKS)}
    assert not left


GATEWAY_TASKS = ("session", "write", "uplink", "detached", "events", "replace")


@asynccontextmanager
async def run_gateway(stack: Stack, **settings: object) -> AsyncIterator[RunningGateway]:
    """Run a gateway on any free port."""
    chosen: dict[str, Any] = {
        "kafka_bootstrap": stack.kafka_bootstrap,
        "database_url": SecretStr(stack.database_url),
        "token_secret": SecretStr("the secret of the tests"),
        "port": 0,
        "drain_timeout_s": 1,
        **settings,
    }
    config = Settings(**chosen)
    async with Gateway.open(config, lambda: None) as gateway:
        server = Server(server_config(create_app(gateway), config), gateway)
        serving = asyncio.create_task(server._serve())
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        opened = RunningGateway(gateway, server, serving)
        yield opened
        await opened.stop()


class Events:
    """Makes events of the session of a record."""

    @staticmethod
    def _ids(chunk: AudioChunk) -> dict[str, Any]:
        return {
            "session_id": chunk.session_id,
            "connection_id": chunk.connection_id,
            "client_id": chunk.client_id,
            "time_ms": 0,
        }

    def final(self, chunk: AudioChunk, index: int, text: str = "words", reason: str = "silence") -> Final:
        """Return a final."""
        return Final(
            **self._ids(chunk), segment_index=index, start_ms=1000 * index, end_ms=1000 * index + 900, text=text,
            words=(), language="en", confidence=0.9, reason=SegmentEnd(reason), model="tiny.en", model_version="1",
            position=16 * (1000 * index + 900),
        )  # fmt: skip

    def partial(self, chunk: AudioChunk, index: int, text: str) -> Partial:
        """Return a partial."""
        return Partial(**self._ids(chunk), segment_index=index, start_ms=0, end_ms=500, text=text, stable_text=text[:3])

    def resumed(self, chunk: AudioChunk, position: int, next_segment_index: int) -> Resumed:
        """Return the answer to a RESUME."""
        return Resumed(**self._ids(chunk), position=position, next_segment_index=next_segment_index)

    def end(
        self, chunk: AudioChunk, segment_count: int, reason: Any = "closed", duration_ms: int | None = None
    ) -> SessionEnd:
        """Return the end of the session, by default where the record stands."""
        if duration_ms is None:
            duration_ms = chunk.position * 1000 // chunk.sample_rate
        return SessionEnd(**self._ids(chunk), segment_count=segment_count, duration_ms=duration_ms, reason=reason)


@pytest.fixture
def events() -> Events:
    """The maker of events."""
    return Events()
