"""One connection's life, from its first frame to its close: see docs/protocol.md."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from uuid import uuid4

from starlette.websockets import WebSocket
from whisperline_contracts import AudioChunk, AudioKind, Event, Resumed, SessionEnd

from whisperline_gateway import errors, messages, metrics
from whisperline_gateway.downlink import Downlink
from whisperline_gateway.errors import ClientError
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.messages import Control
from whisperline_gateway.outbox import Outbox, OutboxFull
from whisperline_gateway.pcm import Decoder, PcmFormat, RawDecoder
from whisperline_gateway.query import ListenRequest, Resume, parse_traceparent
from whisperline_gateway.receipts import Receipts
from whisperline_gateway.tasks import Tasks
from whisperline_gateway.tokens import SignedSession, TokenIssuer, verify
from whisperline_gateway.uplink import Uplink
from whisperline_gateway.wav import WavDecoder
from whisperline_gateway.wire import Gone, Wire

log = logging.getLogger("whisperline.gateway")

_FLUSH_S = 2.0  # at a shutdown, for audio that Kafka is about to acknowledge


class Ending(Enum):
    """How a connection ends, if not by an error."""

    CLOSED = "closed"
    VANISHED = "vanished"


class Session:
    """One connection to one session: reads its socket into an `Uplink`, writes what its `Downlink` has to tell.

    Whatever ends the connection calls `_end`; the first call counts. `run` returns when the socket is closed and no
    task of the connection is left, except that of a session which waits for its client to resume.
    """

    def __init__(self, socket: WebSocket, request: ListenRequest, gateway: Gateway, session_id: str) -> None:
        self.session_id = session_id
        self._connection_id = str(uuid4())
        self._client_id = request.client_id or str(uuid4())
        self._created = datetime.now(UTC)
        self._socket = socket
        self._request = request
        self._options = request.options
        self._gateway = gateway
        self._settings = gateway.settings
        self._secret = gateway.settings.token_secret.get_secret_value().encode()
        self._decoder: Decoder = RawDecoder(request.pcm) if request.pcm else WavDecoder()
        self._pcm: PcmFormat | None = None
        self._uplink: Uplink | None = None
        self._outbox = Outbox()
        self._wire = Wire(socket, self._outbox, self._settings.write_timeout_s)
        self._tasks = Tasks(f"session {session_id}", self._fail)
        self._downlink = Downlink(
            session_id,
            self._connection_id,
            self._outbox,
            gateway.store,
            spawn=self._tasks.spawn,
            vad_events=request.vad_events,
        )
        self._ending: asyncio.Future[Ending | ClientError] = asyncio.get_running_loop().create_future()
        self._opened = asyncio.Event()
        self._quiet_since_s = math.inf
        self._closing = False
        self._closed = asyncio.Event()
        self._receipts: Receipts | None = None  # if the client wants them

    async def run(self) -> None:
        """Serve the connection, whose socket is accepted, to its end. Raises `ClientError` if there is no place."""
        self._gateway.admit(self)
        writer = asyncio.create_task(self._write(), name=f"write {self._connection_id}")
        try:
            self._tasks.spawn(self._read())
            self._tasks.spawn(self._open())
            self._tasks.spawn(self._watch())
            ending = await self._ending
            await self._stop_tasks()
            await self._release(ending)
            await self._say_goodbye(ending, writer)
        finally:
            writer.cancel()
            await self._stop_tasks()
            await asyncio.gather(writer, return_exceptions=True)
            self._gateway.dismiss(self)
            self._closed.set()

    def on_event(self, event: Event) -> None:
        """Take an event of the session, from the gateway."""
        try:
            self._downlink.on_event(event)
        except OutboxFull as full:
            self._fail(full)
        if isinstance(event, Resumed) and self._uplink is not None:
            self._on_stored(self._uplink.position)
        if isinstance(event, SessionEnd) and event.reason == "unknown":
            self._end(errors.unknown_session())

    def supersede(self) -> None:
        """End the connection: another one has resumed the session."""
        self._end(errors.superseded())

    async def drain(self) -> None:
        """End the connection because the gateway stops: a session that cannot be resumed is brought to its end."""
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._opened.wait()
                if self._closing:
                    await asyncio.shield(self._ending)
                elif self._uplink is not None and not self._request.acks:
                    await self._conclude(self._uplink)
        self._end(errors.restarting())
        await self._closed.wait()

    # How it begins.

    async def _open(self) -> None:
        if self._request.resume is not None:
            await self._resume(self._request.resume)
        elif self._request.pcm is not None:
            await self._start(self._request.pcm)
        self._opened.set()

    async def _start(self, pcm: PcmFormat) -> None:
        (await self._connect(pcm, AudioKind.START, 0)).begin(0)
        self._downlink.go_live()
        receipts = self._give_receipts(pcm, 0)
        if self._request.acks:
            self._outbox.put(messages.session_started(self.session_id, self._connection_id, receipts.token(0)))

    async def _resume(self, resume: Resume) -> None:
        token = verify(
            resume.token,
            self._secret,
            session_id=resume.session_id,
            now_s=time.time(),
            lifetime_s=self._settings.token_lifetime_s,
        )
        self._client_id, self._options = token.session.client_id, token.session.options
        pcm = PcmFormat(token.session.sample_rate, token.session.channels)
        self._decoder = RawDecoder(pcm)
        uplink = await self._connect(pcm, AudioKind.RESUME, token.position)
        durable = await self._downlink.durable_position(pcm.sample_rate, self._settings.resume_timeout_s)
        position = max(token.position, durable)
        uplink.begin(position)
        text = self._give_receipts(pcm, position).token(position)
        self._outbox.put(messages.resumed(self.session_id, self._connection_id, text, position, pcm.sample_rate))
        self._downlink.go_live(resume.finals_from)
        self._tasks.spawn(self._ask_again(uplink))

    async def _ask_again(self, uplink: Uplink) -> None:
        """Write RESUME until it is answered: a transcriber that dies may have noted it and not have told so."""
        while not (await asyncio.wait([self._downlink.attached], timeout=self._settings.heartbeat_s))[0]:
            if uplink.has_room:
                uplink.resume()

    def _give_receipts(self, pcm: PcmFormat, position: int) -> Receipts:
        session = SignedSession(
            session_id=self.session_id,
            client_id=self._client_id,
            sample_rate=pcm.sample_rate,
            channels=pcm.channels,
            options=self._options,
        )
        issuer = TokenIssuer(session, self._secret)
        interval_s = self._settings.ack_interval_ms / 1000
        receipts = Receipts(self._outbox, issuer, pcm.sample_rate, position, interval_s)
        self._receipts = receipts if self._request.acks else None
        return receipts

    async def _connect(self, pcm: PcmFormat, kind: AudioKind, position: int) -> Uplink:
        """Write the connection's first record, and wait until it is durable."""
        self._pcm = pcm
        self._downlink.interim_results = self._options.interim_results
        self._uplink = Uplink(
            self._gateway.audio_log,
            self._template(pcm, position),
            self._gateway.pace,
            self._on_stored,
            lambda: self._end(errors.not_durable()),
        )
        await self._gateway.attach(self)
        metrics.SESSIONS.labels(kind.value).inc()
        await self._durable(self._uplink.open(kind))
        return self._uplink

    def _template(self, pcm: PcmFormat, position: int) -> AudioChunk:
        return AudioChunk(
            session_id=self.session_id,
            connection_id=self._connection_id,
            client_id=self._client_id,
            kind=AudioKind.AUDIO,
            sequence=0,
            position=position,
            sample_rate=pcm.sample_rate,
            reply_partition=self._settings.ordinal,
            channels=pcm.channels,
            options=self._options,
            traceparent=parse_traceparent(self._socket.headers.get("traceparent", "")),
        )

    # What the client sends.

    async def _read(self) -> None:
        """Read the socket, from the first moment on: a client that goes while the log is slow is seen to go."""
        while True:
            self._quiet_since_s = time.monotonic()
            message = await self._socket.receive()
            self._quiet_since_s = math.inf  # it is not the client's silence while we are busy with what it sent
            if message["type"] == "websocket.disconnect":
                self._end(Ending.VANISHED)
                return
            if message.get("bytes") is not None:
                await self._take_binary(message["bytes"])
            else:
                await self._take_text(message["text"])

    async def _watch(self) -> None:
        """Raise `ClientError` NET-0001 when the client is silent, while it is its turn to say something."""
        await self._opened.wait()
        timeout_s = self._settings.idle_timeout_s
        left_s = timeout_s
        while not self._closing:
            if left_s <= 0:
                raise errors.silent_client(timeout_s)
            await asyncio.sleep(left_s)
            left_s = min(timeout_s, self._quiet_since_s + timeout_s - time.monotonic())

    async def _take_binary(self, data: bytes) -> None:
        metrics.RECEIVED_BYTES.inc(len(data))
        if self._closing:
            return
        if not data:
            self._close_stream()
            return
        await self._opened.wait()
        samples = self._decoder.feed(data)
        if self._uplink is None and self._decoder.format is not None:
            await self._start(self._decoder.format)
        if samples and self._uplink is not None:
            self._check_not_over(samples)
            self._uplink.write(samples)
            await self._room(self._uplink)

    async def _room(self, uplink: Uplink) -> None:
        if not uplink.has_room:
            await self._durable(uplink.room())

    def _check_not_over(self, samples: bytes) -> None:
        """Raise `ClientError` for audio of a session that has ended; less than 1 ms is a matter of rounding."""
        if self._downlink.ended is not None and self._pcm and len(samples) > self._pcm.bytes_per_s // 1000:
            raise errors.session_over()

    async def _take_text(self, text: str) -> None:
        control = messages.parse_control(text)
        if control is None:
            self._outbox.put(messages.unknown_type(text))
        elif self._closing:
            return
        elif control is Control.CLOSE_STREAM:
            self._close_stream()
        elif control is Control.FINALIZE:
            await self._opened.wait()
            if self._uplink is not None:
                self._uplink.finalize()
                await self._room(self._uplink)

    # How it ends.

    def _close_stream(self) -> None:
        self._closing = True  # from here on the client waits for us
        self._tasks.spawn(self._finish())

    async def _finish(self) -> None:
        """Bring the session to its normal end: every final told, then the summary."""
        await self._opened.wait()
        self._decoder.finish()
        if self._uplink is not None:
            await self._conclude(self._uplink)
        ended = self._downlink.ended
        channels = self._pcm.channels if self._pcm else 1
        duration_ms, segment_count = (ended.duration_ms, ended.segment_count) if ended else (0, 0)
        self._outbox.put(messages.metadata(self.session_id, self._created, duration_ms, channels, segment_count))
        self._end(Ending.CLOSED)

    async def _conclude(self, uplink: Uplink) -> None:
        """Write END, and wait until the session's last final is told. Raises `ClientError` if that takes too long."""
        self._closing = True
        if self._downlink.ended is None:
            uplink.end()
        await self._durable(uplink.drained())
        if self._receipts is not None:
            self._receipts.tell()
        timeout_s = self._settings.finals_limit_s(self._options.priority)
        if not await self._downlink.complete(timeout_s):
            raise errors.late_finals(timeout_s)
        if not self._is_taken(uplink.position):
            raise errors.session_over()

    async def _release(self, ending: Ending | ClientError) -> None:
        """Let go of the uplink: the session is over, or goes on elsewhere, or waits for its client, or is ended."""
        uplink, self._uplink = self._uplink, None
        if uplink is None:
            return
        has_token = self._request.acks and (self._opened.is_set() or self._request.resume is not None)
        resumable = has_token and not self._closing and (not isinstance(ending, ClientError) or ending.retriable)
        if resumable and self._gateway.draining:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await uplink.drained()
            if self._receipts is not None:
                self._receipts.tell()
        elif self._downlink.ended is None and not uplink.failed and not _superseded(ending):
            uplink.begin(uplink.position)
            self._gateway.detach(self.session_id, uplink, self._settings.resume_grace_s if resumable else 0)
            return
        await uplink.close()

    async def _say_goodbye(self, ending: Ending | ClientError, writer: "asyncio.Task[bool]") -> None:
        """Write what is left, the error if there is one, and the close frame."""
        how = ending.code if isinstance(ending, ClientError) else ending.value
        log.info("session %s connection %s: %s", self.session_id, self._connection_id, how)
        metrics.DROPPED_PARTIALS.inc(self._outbox.dropped_partials)
        if ending is Ending.VANISHED:
            metrics.VANISHED.inc()
            return
        failure = ending if isinstance(ending, ClientError) else None
        if failure is not None:
            metrics.ERRORS.labels(failure.code).inc()
        await self._wire.say_goodbye(writer, failure)

    def _end(self, ending: Ending | ClientError) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OutboxFull):
            error = errors.slow_client(self._settings.write_timeout_s)
        elif not isinstance(error, ClientError):
            log.error("session %s failed", self.session_id, exc_info=error)
            error = errors.internal()
        self._end(error)

    # What is written to the client.

    async def _write(self) -> bool:
        """Write what there is until the outbox is closed; return False if the client takes it no more."""
        try:
            await self._wire.write()
        except ClientError as slow:
            self._end(slow)
            return False
        except Gone:
            self._end(Ending.VANISHED)
            return False
        return True

    def _on_stored(self, position: int) -> None:
        if self._receipts is not None and self._is_taken(position):
            self._receipts.stored(position)

    def _is_taken(self, position: int) -> bool:
        """Whether durable audio before `position` is the session's: that may have ended before it was resumed."""
        ended = self._downlink.ended
        if ended is not None:
            return self._pcm is not None and position * 1000 // self._pcm.sample_rate <= ended.duration_ms
        return self._request.resume is None or self._downlink.attached.done()

    async def _durable(self, stored: Awaitable[bool]) -> None:
        """Wait for the log, for so long. Raises `ClientError` NOT_DURABLE."""
        try:
            async with asyncio.timeout(self._settings.durable_timeout_s):
                if await stored:
                    return
        except TimeoutError:
            pass
        raise errors.not_durable()

    async def _stop_tasks(self) -> None:
        if self._receipts is not None:
            self._receipts.stop()
        await self._tasks.stop()


def _superseded(ending: Ending | ClientError) -> bool:
    return isinstance(ending, ClientError) and ending.code == "SUPERSEDED"
