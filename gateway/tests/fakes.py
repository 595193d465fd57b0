"""In-memory parts for unit tests: a client, and a log in which records become durable when the test says so."""

import asyncio
from collections.abc import Iterable

from aiokafka.structs import RecordMetadata, TopicPartition
from harness import PATIENCE_S
from whisperline_contracts import AudioChunk, AudioKind, Final
from whisperline_contracts.topics import AUDIO_CHUNKS
from whisperline_gateway.errors import ClientDisconnectedError, ClientError
from whisperline_gateway.protocol.messages import ClientMessage, ServerMessage


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
