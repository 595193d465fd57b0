"""In-memory parts for unit tests: a client, a log in which records are durable when the test says so, a connection."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka.structs import RecordMetadata, TopicPartition
from harness import PATIENCE_S, settings
from whisperline_contracts import AudioChunk, AudioKind, Final, StreamOptions
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_gateway.connection.connection import Connection, Services
from whisperline_gateway.connection.uplink import Uplink, UplinkPhase
from whisperline_gateway.errors import ClientDisconnectedError, ClientError
from whisperline_gateway.protocol.messages import ClientMessage, Open, Resume, ServerMessage
from whisperline_gateway.protocol.pcm import PcmFormat


class FakePeer:
    """A client that says what the test gives it, and takes each message in `pause_s`."""

    def __init__(self, pause_s: float = 0, *, takes_close: bool = True) -> None:
        self.sent: list[ServerMessage] = []
        self.aborted = False
        self.is_closed = False
        self.closed_with: ClientError | None = None
        self._pause_s = pause_s
        self._takes_close = takes_close
        self._is_gone = False
        self._messages: asyncio.Queue[ClientMessage | Exception] = asyncio.Queue()
        self._news = asyncio.Condition()

    def say(self, *messages: ClientMessage | Exception) -> None:
        """Let the client say something, or fail."""
        for message in messages:
            self._messages.put_nowait(message)

    def disconnect(self) -> None:
        """Let the client close its socket."""
        self._is_gone = True
        self.say(ClientDisconnectedError())

    async def until_sent(self, kind: type, count: int = 1) -> ServerMessage:
        """Wait for a message of a type to the client; return it."""

        def found() -> list[ServerMessage]:
            return [message for message in self.sent if isinstance(message, kind)]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    async def receive(self) -> ClientMessage:
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: ServerMessage) -> str:
        await asyncio.sleep(self._pause_s)
        if self._is_gone:
            raise ClientDisconnectedError
        async with self._news:
            self.sent.append(message)
            self._news.notify_all()
        return type(message).__name__

    async def close(self, failure: ClientError | None) -> None:
        if not self._takes_close:
            await asyncio.Event().wait()
        self.is_closed = True
        self.closed_with = failure

    def abort(self) -> None:
        self.aborted = True

    def error_code(self, failure: ClientError) -> str:
        return failure.code


class HeldLog:
    """An audio log that has a record when the test says so; with `durable` it has every record at once."""

    def __init__(self, *, durable: bool = False) -> None:
        self.generation = 0
        self.chunks: list[AudioChunk] = []
        self.futures: list[asyncio.Future[RecordMetadata]] = []
        self._durable = durable
        self._news = asyncio.Condition()

    @property
    def kinds(self) -> list[AudioKind]:
        return [chunk.kind for chunk in self.chunks]

    async def append(self, chunk: AudioChunk) -> "asyncio.Future[RecordMetadata]":
        async with self._news:
            self.chunks.append(chunk)
            self.futures.append(asyncio.get_running_loop().create_future())
            self._news.notify_all()
        if self._durable:
            self.settle()
        return self.futures[-1]

    async def until(self, count: int) -> None:
        """Wait for so many records."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.chunks) >= count)

    async def until_kind(self, kind: AudioKind) -> AudioChunk:
        """Wait for a record of a kind; return it."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: kind in self.kinds)
        return self.chunks[self.kinds.index(kind)]

    def settle(self, count: int | None = None) -> None:
        """Make the first records durable, or all of them."""
        for offset, future in enumerate(self.futures[:count]):
            if not future.done():
                topic = TopicPartition(AUDIO_CHUNKS, 0)
                future.set_result(RecordMetadata(AUDIO_CHUNKS, 0, topic, offset, None, 0, 0))


class MemoryStore:
    """The finals that a database has; while there is an `error`, it raises it."""

    def __init__(self, finals: Iterable[Final] = ()) -> None:
        self.error: Exception | None = None
        self.queries: list[tuple[int, int | None]] = []
        self._finals = {final.segment_index: final for final in finals}

    def store(self, *finals: Final) -> None:
        self._finals.update({final.segment_index: final for final in finals})

    async def finals(self, session_id: str, first_index: int = 0, end_index: int | None = None) -> list[Final]:
        self.queries.append((first_index, end_index))
        if self.error is not None:
            raise self.error
        return [self._finals[index] for index in sorted(self._finals) if first_index <= index < (end_index or 2**31)]


PCM = PcmFormat(16_000, 1)


class Scene:
    """One connection, its client, its log, and what it asked of the registry."""

    def __init__(self, *, durable: bool = True, acks: bool = False, **changes: object) -> None:
        self.log = HeldLog(durable=durable)
        self.peer = FakePeer()
        self.store = MemoryStore()
        self.attached: list[Connection] = []
        self.detached: list[tuple[UplinkPhase, float]] = []
        self._uplinks: list[Uplink] = []
        config = settings(flush_ms=0, ack_interval_ms=0, resume_grace_s=30, **changes)
        self._services = Services(config, self.log, self.store, self._attach, self._detach)
        self._acks = acks

    async def _attach(self, connection: Connection) -> None:
        self.attached.append(connection)

    def _detach(self, session_id: str, uplink: Uplink, grace_s: float) -> None:
        self.detached.append((uplink.phase, grace_s))
        self._uplinks.append(uplink)

    def connect(
        self, *, pcm: PcmFormat | None = PCM, resume: Resume | None = None, traceparent: str | None = None
    ) -> Connection:
        options = StreamOptions(interim_results=True)
        request = Open(pcm, options, client_id="o", acks=self._acks, vad_events=False, resume=resume)
        return Connection(self.peer, "s", request, self._services, traceparent)

    @asynccontextmanager
    async def running(
        self, *, pcm: PcmFormat | None = PCM, resume: Resume | None = None, traceparent: str | None = None
    ) -> AsyncIterator[tuple[Connection, "asyncio.Task[None]"]]:
        """A connection that runs; at the end it must have ended, and left no uplink open that is not detached."""
        connection = self.connect(pcm=pcm, resume=resume, traceparent=traceparent)
        task = asyncio.create_task(connection.run())
        try:
            yield connection, task
            async with asyncio.timeout(PATIENCE_S):
                await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for uplink in self._uplinks:
                await uplink.close()

    def end_code(self) -> str:
        failure = self.peer.closed_with
        return "closed" if failure is None and self.peer.is_closed else failure.code if failure else "dropped"
