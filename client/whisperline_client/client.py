"""A stream of audio through any of several gateways: the asyncio shell around `Session`."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from whisperline_client import events
from whisperline_client.connection import first_to_end, open_socket, receive, send_control
from whisperline_client.errors import AudioError, ConnectionLost, GatewayUnreachable, StreamError, WhisperlineError
from whisperline_client.options import DEFAULT_URL, ListenOptions, listen_url
from whisperline_client.retry import RetryPolicy
from whisperline_client.session import Session

log = logging.getLogger("whisperline.client")

MAX_FRAME_BYTES = 256 * 1024  # a quarter of what a gateway takes in one frame
EVENT_LIMIT = 256  # events that wait for the caller; beyond that the socket is read no more
KEEP_ALIVE_S = 4.0  # the gateway closes a connection that is silent for 12 s
START_TIMEOUT_S = 65.0  # to make the session's start, or its resumption, durable: a gateway itself gives up at 60 s


class Client:
    """Streams audio to the first of `urls` that answers, and to the next one when that is lost.

    Promises: audio is kept until the gateway has acknowledged it (at most `buffer_s` seconds of it: then no more
    is taken from the source), and every final is delivered once and in order, whatever connections are lost.
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
            listen_url(url, {})
        self.urls = tuple(urls)
        self.retry = retry or RetryPolicy()
        self.buffer_s = buffer_s
        self.close_timeout_s = close_timeout_s

    @asynccontextmanager
    async def stream(
        self, audio: AsyncIterable[bytes], options: ListenOptions | None = None
    ) -> AsyncIterator["Stream"]:
        """Stream linear16 `audio` of any chunking; iterate over the result for its events, `Closed` is the last.

        Iteration raises `StreamError`, `ProtocolError`, or `AudioError` when the source of audio fails.
        Leaving the block early drops the connection.
        """
        opened = Stream(self, audio, options or ListenOptions())
        driver = asyncio.create_task(opened.drive(), name="whisperline stream")
        try:
            yield opened
        finally:
            driver.cancel()
            await asyncio.gather(driver, return_exceptions=True)


@asynccontextmanager
async def stream(
    audio: AsyncIterable[bytes], *, urls: Sequence[str] = (DEFAULT_URL,), options: ListenOptions | None = None
) -> AsyncIterator["Stream"]:
    """Stream `audio` with a client of the default settings: see `Client.stream`."""
    async with Client(urls).stream(audio, options) as opened:
        yield opened


class Stream:
    """A stream under way: an asynchronous iterator of events. Made by `Client.stream`."""

    def __init__(self, client: Client, audio: AsyncIterable[bytes], options: ListenOptions) -> None:
        self.connection_count = 0
        self._client = client
        self._audio = audio
        self._session = Session(options, client.retry, client.buffer_s)
        self._audio_ended = False
        self._audio_error: AudioError | None = None
        self._finalize_wanted = False
        self._work = asyncio.Event()  # audio, its end, or a wish to finalize
        self._space = asyncio.Event()  # in the buffer
        self._events: asyncio.Queue[events.Event | WhisperlineError | None] = asyncio.Queue(EVENT_LIMIT)
        self._over = False

    @property
    def session_id(self) -> str | None:
        """The session's id, once a gateway has opened it."""
        return self._session.session_id

    def finalize(self) -> None:
        """Ask for the open segment to be closed now, after the audio handed in so far."""
        self._finalize_wanted = True
        self._work.set()

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self

    async def __anext__(self) -> events.Event:
        item = None if self._over else await self._events.get()
        if item is None or isinstance(item, WhisperlineError):
            self._over = True
            raise item or StopAsyncIteration
        return item

    async def drive(self) -> None:
        """Carry the stream to its end. `Client.stream` runs this beside the caller."""
        taking = asyncio.create_task(self._take_audio(), name="whisperline audio")
        try:
            await self._converse_until_closed()
            await self._events.put(None)
        except WhisperlineError as error:
            await self._events.put(error)
        except Exception as error:
            log.exception("the stream failed")
            await self._events.put(StreamError(f"{type(error).__name__}: {error}"))
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take_audio(self) -> None:
        try:
            async for data in self._audio:
                while not self._session.buffer.has_space:
                    self._space.clear()
                    await self._space.wait()
                self._session.hand_in(data, time.monotonic())
                self._work.set()
        except AudioError as error:
            self._audio_error = error
        except Exception as error:
            self._audio_error = AudioError(f"the source of audio failed: {type(error).__name__}: {error}")
            self._audio_error.__cause__ = error
        self._audio_ended = True
        self._work.set()

    async def _converse_until_closed(self) -> None:
        for url in cycle(self._client.urls):
            try:
                await self._converse(url)
                return
            except StreamError as lost:
                await self._wait_for_retry(lost)

    async def _wait_for_retry(self, lost: StreamError) -> None:
        if not lost.retriable:
            raise lost
        delay_s = self._session.outage.next_delay_s(time.monotonic(), random.random())  # noqa: S311 - spreads load
        if delay_s is None:
            raise GatewayUnreachable(f"gave up after {self._session.outage.deadline_s:g} s: {lost}") from lost
        log.info("%s; next attempt in %.2f s", lost, delay_s)
        await self._events.put(events.Disconnected(str(lost), delay_s))
        await asyncio.sleep(delay_s)

    async def _converse(self, url: str) -> None:
        resuming = self._session.session_id is not None
        start: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heard = asyncio.Event()

        async def deliver(message: events.Message) -> None:
            heard.set()
            event = self._session.take(message, time.monotonic())
            if isinstance(message, events.Resumed if resuming else events.Started) and not start.done():
                start.set_result(message.position)
            self._space.set()
            if isinstance(message, events.Metadata):
                event = self._closed(message)
            if event is not None:
                await self._events.put(event)

        async with open_socket(listen_url(url, self._session.query())) as socket:
            self.connection_count += 1
            await first_to_end(receive(socket, deliver), self._send(socket, start, heard))

    def _closed(self, summary: events.Metadata) -> events.Closed:
        return events.Closed(
            session_id=summary.session_id,
            duration_ms=summary.duration_ms,
            segment_count=self._session.next_segment_index,
            connection_count=self.connection_count,
        )

    async def _send(self, socket: ClientConnection, start: asyncio.Future[int], heard: asyncio.Event) -> None:
        """Send the audio, then `CloseStream`. Never returns: it is the receiver that sees the end."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                position = await start
            while not self._all_sent(position):
                position = await self._send_next(socket, position)
            if self._audio_error is not None:
                raise self._audio_error
            await send_control(socket, "CloseStream")
            while await _set_within(heard, self._client.close_timeout_s):
                heard.clear()
        except ConnectionClosed:
            await asyncio.Event().wait()  # the receiver reads what came before the close, and reports it
        except TimeoutError:
            raise ConnectionLost(f"the gateway did not open the session within {START_TIMEOUT_S:g} s") from None
        raise ConnectionLost(f"nothing came for {self._client.close_timeout_s:g} s after CloseStream")

    def _all_sent(self, position: int) -> bool:
        return self._audio_ended and position == self._session.buffer.end and not self._finalize_wanted

    async def _send_next(self, socket: ClientConnection, position: int) -> int:
        """Send what waits at `position`, or a sign of life; return the position after it."""
        self._work.clear()
        data = self._session.buffer.read(position, MAX_FRAME_BYTES)
        if data:
            await socket.send(data)
        elif self._finalize_wanted:
            self._finalize_wanted = False
            await send_control(socket, "Finalize")
        elif not self._audio_ended and not await _set_within(self._work, KEEP_ALIVE_S):
            await send_control(socket, "KeepAlive")
        return position + len(data) // self._session.options.frame_bytes


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    # Not asyncio.wait_for: in Python 3.11 it can swallow a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()
