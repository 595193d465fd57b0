"""Stream audio through any of several gateways: the asyncio shell around `SessionState`."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from whisperline_client import events
from whisperline_client.connection import open_socket, receive, send_control
from whisperline_client.errors import AudioError, ConnectionLost, GatewayUnreachable, StreamError, WhisperlineError
from whisperline_client.options import DEFAULT_URL, ListenOptions, listen_url
from whisperline_client.retry import RetryPolicy
from whisperline_client.session import SessionState

log = logging.getLogger("whisperline.client")

MAX_FRAME_BYTES = 256 * 1024  # a quarter of the largest frame that a gateway accepts
EVENT_LIMIT = 256  # events that wait for the caller; the socket is not read while there are more
KEEP_ALIVE_S = 4.0  # the gateway closes a connection that has been silent for 12 s
START_TIMEOUT_S = 65.0  # a gateway gives up making the session's start or resumption durable after 60 s


class Client:
    """Streams audio to the first of `urls` that answers, and to the next one when that connection is lost.

    The client keeps audio until the gateway has acknowledged it. It keeps at most `buffer_s` seconds and reads no
    further from the source while the buffer is full. Every final is delivered once and in order, whatever
    connections are lost. After the last audio, a connection that stays silent for `close_timeout_s` counts as lost.
    """

    def __init__(
        self,
        urls: Sequence[str] = (DEFAULT_URL,),
        *,
        retry: RetryPolicy | None = None,
        buffer_s: float = 120.0,
        close_timeout_s: float = 30.0,
    ) -> None:
        if not urls or isinstance(urls, str):
            raise ValueError(f"a list of gateway URLs is needed, not {urls!r}")
        for url in urls:
            listen_url(url, {})  # raises ValueError for a URL that cannot be a gateway's
        self.urls = tuple(urls)
        self.retry = retry or RetryPolicy()
        self.buffer_s = buffer_s
        self.close_timeout_s = close_timeout_s

    def stream(self, audio: AsyncIterable[bytes], options: ListenOptions | None = None) -> "Stream":
        """Return a stream of linear16 `audio`, cut into chunks of any size; it runs inside its `async with` block.

        Iterate over it for the events; `Closed` is the last. Iteration raises `StreamError`, `ProtocolError`, or
        `AudioError` when the source of audio fails. Leaving the block early drops the connection.
        """
        return Stream(self, audio, options or ListenOptions())


@asynccontextmanager
async def stream(
    audio: AsyncIterable[bytes], *, urls: Sequence[str] = (DEFAULT_URL,), options: ListenOptions | None = None
) -> AsyncIterator["Stream"]:
    """Stream `audio` with a client that has the default settings. See `Client.stream`."""
    async with Client(urls).stream(audio, options) as opened:
        yield opened


class Stream:
    """One stream, from `Client.stream`: an asynchronous context manager and an asynchronous iterator of events."""

    def __init__(self, client: Client, audio: AsyncIterable[bytes], options: ListenOptions) -> None:
        self.connection_count = 0
        self._client = client
        self._audio = audio
        self._session = SessionState(options, client.retry, client.buffer_s)
        self._audio_ended = False
        self._audio_error: AudioError | None = None
        self._finalize_wanted = False
        # The events carry no data: a task that wakes up reads the state above, which may have changed again.
        self._has_work = asyncio.Event()  # there is audio to send, or a Finalize, or the audio has ended
        self._has_space = asyncio.Event()  # the buffer may have space again
        self._events: asyncio.Queue[events.Event | WhisperlineError | None] = asyncio.Queue(EVENT_LIMIT)
        self._exhausted = False  # the last item of the queue has been taken
        self._reading: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None

    @property
    def session_id(self) -> str | None:
        """The session's id; None until a gateway has opened the session."""
        return self._session.session_id

    def finalize(self) -> None:
        """Ask the gateway to close the open segment now, after the audio read from the source so far."""
        self._finalize_wanted = True
        self._has_work.set()

    def end_audio(self) -> None:
        """Read no more from the source. The session closes after the text of the audio read so far."""
        if self._reading is not None:
            self._reading.cancel()
        self._audio_ended = True
        self._has_work.set()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_audio(), name="whisperline audio")
        self._delivering = asyncio.create_task(self._deliver_events(), name="whisperline stream")
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # Without a task group: it would wrap what the caller's own block raises in an exception group.
        tasks = [task for task in (self._reading, self._delivering) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self

    async def __anext__(self) -> events.Event:
        item = None if self._exhausted else await self._events.get()
        if item is None or isinstance(item, WhisperlineError):
            self._exhausted = True
            raise item or StopAsyncIteration
        return item

    async def _read_audio(self) -> None:
        """Move audio from the source into the buffer, and wait while the buffer is full."""
        try:
            async for data in self._audio:
                # Append before waiting for space: the time of capture is now, and `end_audio` cannot lose this chunk.
                self._session.append_audio(data, time.monotonic())
                self._has_work.set()
                while not self._session.buffer.has_space:
                    self._has_space.clear()
                    await self._has_space.wait()
        except AudioError as error:
            self._audio_error = error
        except Exception as error:
            self._audio_error = AudioError(f"the source of audio failed: {type(error).__name__}: {error}")
            self._audio_error.__cause__ = error
        self._audio_ended = True
        self._has_work.set()

    async def _deliver_events(self) -> None:
        """Connect to one gateway after another until the session is closed; the last item queued says how it ended."""
        outage = self._session.outage
        try:
            # Any gateway can resume the session, so the next one is as good as the one that was lost.
            for url in cycle(self._client.urls):
                try:
                    await self._converse(url)
                    break
                except StreamError as lost:
                    if not lost.retriable:
                        raise
                    delay_s = outage.next_delay_s(time.monotonic(), random.random())  # noqa: S311 - spreads load
                    if delay_s is None:
                        raise GatewayUnreachable(f"gave up after {outage.deadline_s:g} s: {lost}") from lost
                    log.info("%s; next attempt in %.2f s", lost, delay_s)
                    await self._events.put(events.Disconnected(str(lost), delay_s))
                    await asyncio.sleep(delay_s)
            await self._events.put(None)
        except WhisperlineError as error:
            await self._events.put(error)
        except Exception as error:  # a bug here; without an item in the queue the caller would wait for ever
            log.exception("the stream failed")
            await self._events.put(StreamError(f"{type(error).__name__}: {error}"))

    async def _converse(self, url: str) -> None:
        """Continue the stream over one connection until the session is closed.

        Raises `StreamError` when the connection ends or falls silent before that, and `AudioError` when all audio
        of a source that failed has been sent.
        """
        opening = events.Started if self._session.session_id is None else events.Resumed
        sender: asyncio.Task[None] | None = None
        async with open_socket(listen_url(url, self._session.query())) as socket:
            self.connection_count += 1
            try:
                # Silence is limited only until the gateway has opened the session, and again after CloseStream. In
                # between, a gateway has nothing to send while nobody speaks.
                async with asyncio.timeout(START_TIMEOUT_S) as silence, asyncio.TaskGroup() as tasks:
                    async for message in receive(socket):
                        if sender is None and isinstance(message, opening):
                            silence.reschedule(None)
                            sender = tasks.create_task(self._send_audio(socket, message.position, silence))
                        elif sender is not None and sender.done():
                            self._limit_silence(silence)
                        await self._deliver_event(message)
                    if sender is not None:
                        sender.cancel()  # the session is closed, so the rest need not be sent
            except TimeoutError:
                if sender is None:
                    raise ConnectionLost(f"the gateway did not open the session in {START_TIMEOUT_S:g} s") from None
                raise ConnectionLost(f"nothing came for {self._client.close_timeout_s:g} s after CloseStream") from None
            except ExceptionGroup as group:
                first = group.exceptions[0]  # callers expect a `WhisperlineError`, not a group of them
                raise first from first.__cause__

    async def _deliver_event(self, message: events.Message) -> None:
        event = self._session.apply_message(message, time.monotonic())
        self._has_space.set()  # the message may have been an acknowledgement
        if isinstance(message, events.Metadata):
            count = self._session.next_segment_index
            event = events.Closed(message.session_id, message.duration_ms, count, self.connection_count)
        if event is not None:
            await self._events.put(event)

    async def _send_audio(self, socket: ClientConnection, position: int, silence: asyncio.Timeout) -> None:
        """Send the audio from `position` on, `Finalize` when the caller wants it, and `CloseStream` at the end."""
        with suppress(ConnectionClosed):  # the receiver reads what came before the close, and reports it
            while True:
                self._has_work.clear()  # cleared before the state is read, so that no change in between is missed
                if data := self._session.buffer.read(position, MAX_FRAME_BYTES):
                    await socket.send(data)
                    position += len(data) // self._session.options.frame_bytes
                elif self._finalize_wanted:
                    self._finalize_wanted = False
                    await send_control(socket, "Finalize")
                elif self._audio_ended:
                    break
                else:
                    try:
                        async with asyncio.timeout(KEEP_ALIVE_S):
                            await self._has_work.wait()
                    except TimeoutError:
                        await send_control(socket, "KeepAlive")
            # Raised only now that all audio from before the failure has been sent.
            if self._audio_error is not None:
                raise self._audio_error
            await send_control(socket, "CloseStream")
            self._limit_silence(silence)

    def _limit_silence(self, silence: asyncio.Timeout) -> None:
        """Allow `close_timeout_s` of silence from now on."""
        silence.reschedule(asyncio.get_running_loop().time() + self._client.close_timeout_s)
