"""One connection's life, from its first frame to its close: see docs/protocol.md."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from starlette.websockets import WebSocket, WebSocketDisconnect
from whisperline_contracts import AudioChunk, AudioKind, Event, SessionEnd

from whisperline_gateway import errors, messages, metrics
from whisperline_gateway.downlink import Downlink
from whisperline_gateway.errors import ClientError, CloseCode
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.messages import Control
from whisperline_gateway.outbox import Outbox, OutboxFull
from whisperline_gateway.pcm import Decoder, PcmFormat, RawDecoder
from whisperline_gateway.query import ListenRequest, Resume
from whisperline_gateway.tokens import ResumeToken, sign, verify
from whisperline_gateway.uplink import Pace, Uplink
from whisperline_gateway.wav import WavDecoder

log = logging.getLogger("whisperline.gateway")

ABORT = "whisperline.abort"  # the scope's extension that drops the socket at once, unwritten bytes and all
_FLUSH_S = 5.0  # at a shutdown, for audio that Kafka is about to acknowledge
_MAX_REASON_BYTES = 120  # of a close frame, which has 123


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
        self._decoder: Decoder = RawDecoder(request.pcm) if request.pcm else WavDecoder()
        self._pcm: PcmFormat | None = None
        self._uplink: Uplink | None = None
        self._outbox = Outbox()
        self._downlink = Downlink(session_id, self._outbox, gateway.store, self._spawn, vad_events=request.vad_events)
        self._helpers: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Future[Ending | ClientError] = asyncio.get_running_loop().create_future()
        self._closing = False
        self._closed = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._acked_position = 0

    async def run(self) -> None:
        """Serve the connection, whose socket is accepted, to its end. Raises `ClientError` if there is no place."""
        self._gateway.admit(self)
        writer = asyncio.create_task(self._write(), name=f"write {self._connection_id}")
        try:
            self._spawn(self._read())
            ending = await self._ending
            await self._stop_helpers()
            await self._release(ending)
            await self._say_goodbye(ending, writer)
        finally:
            writer.cancel()
            await self._stop_helpers()
            await asyncio.gather(writer, return_exceptions=True)
            self._gateway.dismiss(self)
            self._closed.set()

    def on_event(self, event: Event) -> None:
        """Take an event of the session, from the gateway."""
        try:
            self._downlink.on_event(event)
        except OutboxFull:
            self._end(errors.slow_client(self._settings.write_timeout_s))
        if isinstance(event, SessionEnd) and event.reason == "unknown":
            self._end(errors.unknown_session())

    def supersede(self) -> None:
        """End the connection: another one has resumed the session."""
        self._end(errors.superseded())

    async def drain(self) -> None:
        """End the connection because the gateway stops: a session that cannot be resumed is brought to its end."""
        if self._uplink is not None and not self._request.acks:
            with suppress(ClientError, TimeoutError):
                async with asyncio.timeout(self._settings.drain_timeout_s):
                    await self._conclude(self._uplink)
        self._end(errors.restarting())
        await self._closed.wait()

    # How it begins.

    async def _open(self) -> None:
        if self._request.resume is not None:
            await self._resume(self._request.resume)
        elif self._request.pcm is not None:
            await self._start(self._request.pcm)

    async def _start(self, pcm: PcmFormat) -> None:
        uplink = await self._connect(pcm, AudioKind.START, 0)
        uplink.begin(0)
        self._downlink.go_live()
        if self._request.acks:
            self._outbox.put(messages.session_started(self.session_id, self._connection_id, self._token(0)))

    async def _resume(self, resume: Resume) -> None:
        token = verify(
            resume.token,
            self._settings.token_secret.get_secret_value().encode(),
            session_id=resume.session_id,
            now_s=time.time(),
            lifetime_s=self._settings.token_lifetime_s,
        )
        self._client_id, self._options = token.client_id, token.options
        pcm = PcmFormat(token.sample_rate, token.channels)
        self._decoder = RawDecoder(pcm)
        uplink = await self._connect(pcm, AudioKind.RESUME, token.position)
        position = max(token.position, await self._durable_position(pcm))
        uplink.begin(position)
        self._acked_position = position
        text = self._token(position)
        self._outbox.put(messages.resumed(self.session_id, self._connection_id, text, position, pcm.sample_rate))
        self._downlink.go_live(resume.finals_from)

    async def _connect(self, pcm: PcmFormat, kind: AudioKind, position: int) -> Uplink:
        """Write the connection's first record, and wait until it is durable."""
        self._pcm = pcm
        self._downlink.interim_results = self._options.interim_results
        self._uplink = Uplink(
            self._gateway.audio_log, self._template(pcm, position), self._pace(), self._on_stored, self._on_failure
        )
        await self._gateway.attach(self)
        metrics.SESSIONS.labels(kind.value).inc()
        await self._durable(self._uplink.open(kind))
        return self._uplink

    async def _durable_position(self, pcm: PcmFormat) -> int:
        """Ask the transcriber where the session's audio ends; 0 if it does not say in time."""
        try:
            async with asyncio.timeout(self._settings.resume_timeout_s):
                event = await asyncio.shield(self._downlink.attached)
        except TimeoutError:
            return 0
        return event.duration_ms * pcm.sample_rate // 1000 if isinstance(event, SessionEnd) else event.position

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
            traceparent=self._socket.headers.get("traceparent"),
        )

    def _pace(self) -> Pace:
        settings = self._settings
        return Pace(settings.flush_ms / 1000, settings.heartbeat_s, settings.in_flight_bytes)

    # What the client sends.

    async def _read(self) -> None:
        await self._open()
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._end(Ending.VANISHED)
                return
            if message.get("bytes") is not None:
                await self._take_binary(message["bytes"])
            else:
                self._take_text(message["text"])

    async def _receive(self) -> MutableMapping[str, Any]:
        timeout_s = self._settings.idle_timeout_s
        try:
            async with asyncio.timeout(None if self._closing else timeout_s):
                return await self._socket.receive()
        except TimeoutError:
            raise errors.silent_client(timeout_s) from None

    async def _take_binary(self, data: bytes) -> None:
        metrics.RECEIVED_BYTES.inc(len(data))
        if self._closing:
            return
        if not data:
            self._close_stream()
            return
        samples = self._decoder.feed(data)
        if self._uplink is None and self._decoder.format is not None:
            await self._start(self._decoder.format)
        if samples and self._uplink is not None:
            self._check_not_over(samples)
            await self._durable(self._uplink.write(samples))

    def _check_not_over(self, samples: bytes) -> None:
        """Raise `ClientError` for audio of a session that has ended; less than 1 ms is a matter of rounding."""
        if self._downlink.ended is not None and self._pcm and len(samples) > self._pcm.bytes_per_s // 1000:
            raise errors.session_over()

    def _take_text(self, text: str) -> None:
        control = messages.parse_control(text)
        if control is None:
            self._outbox.put(messages.unknown_type(text))
        elif self._closing:
            return
        elif control is Control.CLOSE_STREAM:
            self._close_stream()
        elif control is Control.FINALIZE and self._uplink is not None:
            self._uplink.finalize()

    # How it ends.

    def _close_stream(self) -> None:
        self._closing = True
        self._spawn(self._finish())

    async def _finish(self) -> None:
        """Bring the session to its normal end: every final told, then the summary."""
        self._decoder.finish()
        if self._uplink is not None:
            await self._conclude(self._uplink)
        ended = self._downlink.ended
        channels = self._pcm.channels if self._pcm else 1
        duration_ms, segment_count = (ended.duration_ms, ended.segment_count) if ended else (0, 0)
        self._outbox.put(messages.metadata(self.session_id, self._created, duration_ms, channels, segment_count))
        self._end(Ending.CLOSED)

    async def _conclude(self, uplink: Uplink) -> None:
        """Write END, and wait until the session's last final is told."""
        self._closing = True
        if self._downlink.ended is None:
            uplink.end()
        await self._durable(uplink.drained())
        self._put_ack()
        if not await self._downlink.complete(self._settings.finals_timeout_s):
            raise errors.late_finals(self._settings.finals_timeout_s)

    async def _release(self, ending: Ending | ClientError) -> None:
        """Let go of the uplink: the session is over, or goes on elsewhere, or waits for its client, or is ended."""
        uplink, self._uplink = self._uplink, None
        if uplink is None:
            return
        retriable = not isinstance(ending, ClientError) or ending.retriable
        resumable = self._request.acks and retriable and not self._closing
        if resumable and self._gateway.draining:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await uplink.drained()
            self._put_ack_of(uplink)
        elif self._downlink.ended is None and not uplink.failed and not _superseded(ending):
            uplink.begin(uplink.position)
            self._gateway.detach(self.session_id, uplink, self._settings.resume_grace_s if resumable else 0)
            return
        await uplink.close()

    async def _say_goodbye(self, ending: Ending | ClientError, writer: "asyncio.Task[bool]") -> None:
        """Write what is left, the error if there is one, and the close frame."""
        self._log_ending(ending)
        metrics.DROPPED_PARTIALS.inc(self._outbox.dropped_partials)
        if ending is Ending.VANISHED:
            metrics.VANISHED.inc()
            return
        if isinstance(ending, ClientError):
            metrics.ERRORS.labels(ending.code).inc()
            with suppress(OutboxFull):
                self._outbox.put(messages.error(ending))
        self._outbox.close()
        if await writer:
            await close_socket(self._socket, ending if isinstance(ending, ClientError) else None)
        else:
            self._abort()

    def _abort(self) -> None:
        abort = self._socket.scope["extensions"].get(ABORT)
        if abort is not None:
            abort()

    def _log_ending(self, ending: Ending | ClientError) -> None:
        how = ending.code if isinstance(ending, ClientError) else ending.value
        log.info("session %s connection %s: %s", self.session_id, self._connection_id, how)

    def _end(self, ending: Ending | ClientError) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    # What is written to the client.

    async def _write(self) -> bool:
        """Write the messages of the outbox until it is closed; return False if the client takes them no more."""
        sequence_id = 0
        while (message := await self._outbox.next()) is not None:
            try:
                async with asyncio.timeout(self._settings.write_timeout_s):
                    await self._socket.send_text(messages.encode(message, sequence_id))
            except TimeoutError:
                self._end(errors.slow_client(self._settings.write_timeout_s))
                return False
            except (WebSocketDisconnect, RuntimeError):
                self._end(Ending.VANISHED)
                return False
            metrics.SENT.labels(message["type"]).inc()
            sequence_id += 1
        return True

    def _on_stored(self, _position: int) -> None:
        """Acknowledge, now or when the interval since the last Ack has passed."""
        if self._request.acks and self._ack_timer is None and not self._ending.done():
            self._put_ack()
            interval_s = self._settings.ack_interval_ms / 1000
            self._ack_timer = asyncio.get_running_loop().call_later(interval_s, self._next_ack)

    def _next_ack(self) -> None:
        self._ack_timer = None
        if self._uplink is not None and self._uplink.position > self._acked_position:
            self._on_stored(self._uplink.position)

    def _put_ack(self) -> None:
        if self._uplink is not None:
            self._put_ack_of(self._uplink)

    def _put_ack_of(self, uplink: Uplink) -> None:
        if self._request.acks and self._pcm is not None and uplink.position > self._acked_position:
            self._acked_position = uplink.position
            text = self._token(self._acked_position)
            self._outbox.put_ack(messages.ack(text, self._acked_position, self._pcm.sample_rate))

    def _on_failure(self) -> None:
        self._end(errors.not_durable())

    def _token(self, position: int) -> str:
        assert self._pcm is not None  # noqa: S101 - acks begin when the format is known
        token = ResumeToken(
            session_id=self.session_id,
            client_id=self._client_id,
            sample_rate=self._pcm.sample_rate,
            channels=self._pcm.channels,
            options=self._options,
            position=position,
            issued_s=int(time.time()),
        )
        return sign(token, self._settings.token_secret.get_secret_value().encode())

    # Tasks.

    async def _durable(self, stored: Awaitable[bool]) -> None:
        """Wait for the log, for so long. Raises `ClientError` NOT_DURABLE."""
        try:
            async with asyncio.timeout(self._settings.durable_timeout_s):
                if await stored:
                    return
        except TimeoutError:
            pass
        raise errors.not_durable()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work), name=f"session {self.session_id}")
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ClientError as error:
            self._end(error)
        except OutboxFull:
            self._end(errors.slow_client(self._settings.write_timeout_s))
        except Exception:
            log.exception("session %s failed", self.session_id)
            self._end(errors.internal())

    async def _stop_helpers(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        helpers = list(self._helpers)
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)


async def refuse(socket: WebSocket, failure: ClientError) -> None:
    """Tell the client of an accepted socket why it is not served, and close."""
    metrics.ERRORS.labels(failure.code).inc()
    log.info("connection refused: %s", failure)
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(messages.encode(messages.error(failure), 0))
        await close_socket(socket, failure)


async def close_socket(socket: WebSocket, failure: ClientError | None) -> None:
    """Send the close frame; nothing happens if the client was faster."""
    code = CloseCode.NORMAL if failure is None else failure.close_code
    reason = "" if failure is None else f"{failure.code}: {failure.message}"
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"))


def _superseded(ending: Ending | ClientError) -> bool:
    return isinstance(ending, ClientError) and ending.code == "SUPERSEDED"
