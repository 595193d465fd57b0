"""One connection's life: open, stream, finish. docs/protocol.md describes it from the client's side."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from uuid import uuid4

from opentelemetry import trace
from whisperline_contracts import AudioChunk, AudioKind, Event, Resumed, SessionEnd, StreamOptions
from whisperline_runtime import tracing
from whisperline_runtime.logs import bind
from whisperline_runtime.tracing import Link, Span, SpanKind, Status, StatusCode

from whisperline_gateway import errors, metrics
from whisperline_gateway.connection.acks import AckSender
from whisperline_gateway.connection.downlink import Downlink, FinalStore
from whisperline_gateway.connection.outbox import Outbox, Peer, SocketWriter
from whisperline_gateway.connection.uplink import RecordLog, RecordSpans, Uplink, UplinkLimits, UplinkPhase
from whisperline_gateway.errors import (
    ClientDisconnectedError,
    ClientError,
    OutboxFullError,
    RestartingError,
    SupersededError,
)
from whisperline_gateway.protocol.messages import (
    Audio,
    CloseStream,
    Finalize,
    Open,
    SessionResumed,
    SessionStarted,
    Summary,
    UnknownMessage,
)
from whisperline_gateway.protocol.pcm import AudioParser, PcmFormat, RawParser
from whisperline_gateway.protocol.tokens import SignedSession, TokenIssuer, verify
from whisperline_gateway.protocol.wav import WavParser
from whisperline_gateway.settings import Settings

log = logging.getLogger(__name__)
TRACER = tracing.tracer(__name__)

_FLUSH_S = 2.0  # when the gateway stops: how long to wait for Kafka to acknowledge the last audio


class Phase(Enum):
    """The phase of a connection's life. A connection only ever moves down this list."""

    HEADER = "header"  # the header of a WAV file is being read; a connection of raw audio skips this
    OPENING = "opening"  # START or RESUME is being written; the client waits for us
    STREAMING = "streaming"  # audio is accepted
    FINISHING = "finishing"  # END is being written, and the last finals sent
    OVER = "over"  # only the socket is left to close


class Closing(Enum):
    """The side that asked for the connection to close."""

    CLIENT = "client"
    GATEWAY = "gateway"


@dataclass(frozen=True)
class Services:
    """The things that all connections of a gateway use."""

    settings: Settings
    audio_log: RecordLog
    store: FinalStore
    # Routes the session's events to a connection, and supersedes the connection that received them before.
    attach: Callable[["Connection"], Awaitable[None]]
    # Keeps a session without a client for some seconds (0: not at all), then ends it. Takes over the uplink.
    detach: Callable[[str, Uplink, float], None]


@dataclass(frozen=True)
class _Origin:
    """The properties that the first query gives to a session. A resumed connection reads them from its token."""

    client_id: str
    options: StreamOptions
    pcm: PcmFormat | None  # None: the header of the WAV file gives it
    position: int  # samples per channel: where this connection's audio begins, as far as the gateway knows


class Connection:
    """Serves one client: reads its messages into an `Uplink`, and writes the messages of its `Downlink`.

    `run` is a task group. Its body opens the session, waits while the reader streams, and finishes the session. In
    every other case one of the group's tasks raises the error that ends the connection. Code outside these tasks (the
    registry, the uplink, the writer) raises its errors through `interrupt`. The uplink outlives the group because the
    session may wait for its client, and the writer does because it must still write the error itself.
    """

    def __init__(
        self, peer: Peer, session_id: str, request: Open, services: Services, traceparent: str | None = None
    ) -> None:
        """Raises `ClientError` if the request's resume token cannot be used."""
        settings = services.settings
        self.session_id = session_id
        self.connection_id = str(uuid4())
        self._created = datetime.now(UTC)
        self._peer = peer
        self._request = request
        self._services = services
        self._trace_context = tracing.context_of(traceparent)  # the client's
        if request.resume is None:
            origin = _Origin(request.client_id or str(uuid4()), request.options, request.pcm, 0)
        else:
            token = verify(
                request.resume.token,
                settings.token_key,
                session_id=session_id,
                now_s=time.time(),
                lifetime_s=settings.token_lifetime_s,
            )
            pcm = PcmFormat(token.session.sample_rate, token.session.channels)
            origin = _Origin(token.session.client_id, token.session.options, pcm, token.position)
        self._origin = origin
        # A resumed session goes on as raw audio, even if it began as a WAV file.
        self._parser: AudioParser = RawParser(origin.pcm) if origin.pcm is not None else WavParser()

        self._phase = Phase.OPENING if origin.pcm is not None else Phase.HEADER
        self._phase_since_s = time.monotonic()
        self._reading_since_s = math.inf  # infinite while the reader is busy with a message: see `_watch_silence`
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._header_over = asyncio.Event()  # the header is complete, or the client closed before it was
        self._opened = asyncio.Event()
        self._interruption: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._uplink: Uplink | None = None  # from OPENING on, until the registry takes it over
        self._acks: AckSender | None = None  # from STREAMING on, if the client wants Acks
        self._outbox = Outbox()
        self._downlink = Downlink(
            session_id,
            self.connection_id,
            self._outbox,
            services.store,
            interim_results=origin.options.interim_results,
            vad_events=request.vad_events,
        )

    async def run(self) -> None:
        """Serve the client to the end. Afterwards the socket is closed, and no task of the connection is left."""
        write_timeout_s = self._services.settings.write_timeout_s
        try:
            with (
                bind(session_id=self.session_id, connection_id=self.connection_id),
                TRACER.start_as_current_span("listen", self._trace_context, SpanKind.SERVER) as span,
            ):
                async with SocketWriter(self._peer, self._outbox, write_timeout_s, self.interrupt) as writer:
                    ending = await self._serve()
                    self._interruption.cancel()  # no task waits for it any more
                    await self._leave_session(ending)
                    self._set_phase(Phase.OVER)
                    if self._acks is not None:
                        self._acks.stop()
                    self._report(ending, span)
                    if not isinstance(ending, ClientDisconnectedError):
                        await writer.close(ending)
        finally:
            if self._uplink is not None:
                await self._uplink.close()
            self._over.set()

    def on_event(self, event: Event) -> None:
        """Process an event of the session. The registry calls this between `attach` and the end of `run`."""
        try:
            self._downlink.on_event(event)
        except OutboxFullError as error:
            self.interrupt(error)
        if isinstance(event, Resumed) and self._uplink is not None:
            self._on_durable(self._uplink.position)  # Acks had to wait for this answer
        if isinstance(event, SessionEnd) and event.reason in ("unknown", "refused"):
            self.interrupt(_ending_error(event))

    def interrupt(self, error: Exception) -> None:
        """End the connection from outside its tasks: one of them raises `error`. Only the first call counts."""
        if not self._interruption.done():
            self._interruption.set_exception(error)

    async def drain(self) -> None:
        """End the connection because the gateway stops; return when its socket is closed.

        A session that no other gateway can resume gets `drain_timeout_s` to finish.
        """
        self._request_close(Closing.GATEWAY)
        try:
            async with asyncio.timeout(self._services.settings.drain_timeout_s):
                await self._over.wait()
        except TimeoutError:
            self.interrupt(RestartingError())
            await self._over.wait()

    async def _serve(self) -> ClientError | ClientDisconnectedError | None:
        """Run the connection; return the error that ended it, or None if it was closed normally."""

        async def raise_interruption() -> None:
            await self._interruption

        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(work, name=f"session {self.session_id}")
                    for work in (
                        self._read(),
                        self._watch_silence(),
                        self._downlink.fill_gaps(),
                        raise_interruption(),
                    )
                ]
                if self._phase is Phase.HEADER:
                    await self._header_over.wait()
                pcm = self._parser.format
                if pcm is not None:
                    self._set_phase(Phase.OPENING)
                    uplink = await self._open(pcm)
                    if self._request.resume is not None:
                        beside.append(group.create_task(self._repeat_resume(uplink), name=f"session {self.session_id}"))
                self._set_phase(Phase.STREAMING)
                self._opened.set()
                await asyncio.wait([self._closing])  # unlike a bare `await`, this does not cancel it with the task
                closing = self._closing.result()
                if closing is Closing.GATEWAY and (self._uplink is None or self._request.acks):
                    raise RestartingError
                self._set_phase(Phase.FINISHING)
                if closing is Closing.CLIENT:
                    self._parser.finish()
                if self._uplink is not None:
                    await self._finish(self._uplink)
                if closing is Closing.GATEWAY:
                    raise RestartingError
                ended = self._downlink.ended
                self._outbox.put_last(
                    Summary(
                        self.session_id,
                        self._created,
                        duration_ms=ended.duration_ms if ended else 0,
                        channels=pcm.channels if pcm else 1,
                        segment_count=ended.segment_count if ended else 0,
                    )
                )
                for task in beside:
                    task.cancel()
        except ExceptionGroup as failed:
            error = failed.exceptions[0]  # the first one ended the others
            if isinstance(error, ClientError | ClientDisconnectedError):
                return error
            if isinstance(error, OutboxFullError):
                return errors.slow_client(self._services.settings.write_timeout_s)
            log.error("the connection failed", exc_info=error)
            return errors.internal()
        return None

    def _report(self, ending: ClientError | ClientDisconnectedError | None, span: Span) -> None:
        """Record in the log, the metrics and the trace how the connection ended."""
        metrics.DROPPED_PARTIALS.inc(self._outbox.dropped_partials)
        if isinstance(ending, ClientDisconnectedError):
            metrics.VANISHED.inc()
            how = "disconnected"
        elif ending is not None:
            metrics.ERRORS.labels(self._peer.error_code(ending)).inc()
            how = ending.code
        else:
            how = "closed"
        log.info("the connection is over: %s", how)
        if span.is_recording():
            span.set_attribute("whisperline.session.id", self.session_id)
            span.set_attribute("whisperline.connection.id", self.connection_id)
            span.set_attribute("whisperline.connection.end", how)
            if isinstance(ending, ClientError) and ending.retriable:
                span.set_status(Status(StatusCode.ERROR, how))

    async def _open(self, pcm: PcmFormat) -> Uplink:
        """Write START or RESUME, wait until it is durable, then tell the client. Raises `ClientError` NOT_DURABLE."""
        settings, resume = self._services.settings, self._request.resume
        template = AudioChunk(
            session_id=self.session_id,
            connection_id=self.connection_id,
            client_id=self._origin.client_id,
            kind=AudioKind.AUDIO,
            sequence=0,
            position=self._origin.position,
            sample_rate=pcm.sample_rate,
            reply_partition=settings.ordinal,
            channels=pcm.channels,
            options=self._origin.options,
            # For records without audio. A record with audio gets a traceparent of its own, if tracing is on.
            traceparent=tracing.current_traceparent(),
        )
        limits = UplinkLimits(settings.flush_ms / 1000, settings.heartbeat_s, settings.in_flight_bytes)
        spans = None
        if tracing.is_on():
            spans = RecordSpans(self._trace_context, Link(trace.get_current_span().get_span_context()))
        uplink = Uplink(
            self._services.audio_log,
            template,
            limits,
            self._on_durable,
            lambda: self.interrupt(errors.not_durable()),
            spans=spans,
        )
        self._uplink = uplink
        await self._services.attach(self)
        kind = AudioKind.RESUME if resume else AudioKind.START
        metrics.SESSIONS.labels(kind.value).inc()
        await self._durable(uplink.open(kind))
        position = self._origin.position
        if resume is not None:
            # More audio may be durable than the client has seen acknowledged. Only the transcriber knows how much.
            durable = await self._downlink.durable_position(pcm.sample_rate, settings.resume_timeout_s)
            position = max(position, durable)
            uplink.rebase(position)
        session = SignedSession(
            session_id=self.session_id,
            client_id=self._origin.client_id,
            sample_rate=pcm.sample_rate,
            channels=pcm.channels,
            options=self._origin.options,
        )
        issuer = TokenIssuer(session, settings.token_key)
        if self._request.acks:
            interval_s = settings.ack_interval_ms / 1000
            self._acks = AckSender(self._outbox, issuer, pcm.sample_rate, position, interval_s)
        token = issuer.issue(position, time.time())
        if resume is not None:
            self._outbox.put(SessionResumed(self.session_id, self.connection_id, token, position, pcm.sample_rate))
        elif self._request.acks:
            self._outbox.put(SessionStarted(self.session_id, self.connection_id, token))
        self._downlink.start(resume.finals_from if resume is not None else 0)
        return uplink

    async def _repeat_resume(self, uplink: Uplink) -> None:
        """Write RESUME until a transcriber answers: one may die after it noted RESUME and before it answered."""
        answer = self._downlink.answer
        while not (await asyncio.wait([answer], timeout=self._services.settings.heartbeat_s))[0]:
            if uplink.has_space:
                uplink.resume_again()

    async def _read(self) -> None:
        """Read the client's messages, even before the session is open, to notice a client that leaves then."""
        while True:
            self._reading_since_s = time.monotonic()
            message = await self._peer.receive()
            self._reading_since_s = math.inf
            match message:
                case UnknownMessage():
                    self._outbox.put(message)
                case _ if self._closing.done():
                    continue  # the stream is over: whatever the client still sends is ignored
                case Audio():
                    samples = self._parser.parse(message.data)
                    pcm = self._parser.format
                    if pcm is None:
                        continue
                    if not self._opened.is_set():
                        self._header_over.set()
                        await self._opened.wait()
                    # The end of the session is rounded to milliseconds: 1 ms of audio after it is no error.
                    if self._downlink.ended is not None and len(samples) > pcm.bytes_per_s // 1000:
                        raise _ending_error(self._downlink.ended)
                    if self._uplink is not None:
                        self._uplink.write(samples)
                case Finalize() if self._phase is not Phase.HEADER:
                    await self._opened.wait()
                    if self._uplink is not None:
                        self._uplink.finalize()
                case CloseStream():
                    self._request_close(Closing.CLIENT)
            # While there is no space, the socket is not read: TCP then slows the client down.
            if self._uplink is not None and self._opened.is_set() and not self._uplink.has_space:
                await self._durable(self._uplink.wait_for_space())

    async def _watch_silence(self) -> None:
        """Raise `ClientError` when the client is silent while it is its turn to send something.

        It is not its turn while it waits for us to open the session, or while the reader is busy with what it sent.
        One sleeping task costs less than a timer for each message: there are 50 a second.
        """
        timeout_s = left_s = self._services.settings.idle_timeout_s
        while not self._closing.done():
            if left_s <= 0:
                raise errors.silent_client(timeout_s)
            await asyncio.sleep(left_s)
            left_s = timeout_s
            if self._phase is not Phase.OPENING:
                silent_since_s = max(self._phase_since_s, self._reading_since_s)
                left_s = min(timeout_s, silent_since_s + timeout_s - time.monotonic())

    async def _finish(self, uplink: Uplink) -> None:
        """Finish the session: write END, and wait until its last final is in the outbox. Raises `ClientError`."""
        if self._downlink.ended is None:
            uplink.end()
        await self._durable(uplink.flush())
        if self._acks is not None:
            self._acks.flush()
        timeout_s = self._services.settings.finals_limit_s(self._origin.options.priority)
        if not await self._downlink.wait_for_end(timeout_s):
            raise errors.late_finals(timeout_s)
        ended = self._downlink.ended
        if ended is not None and (ended.reason == "refused" or not self._is_in_session(uplink.position)):
            raise _ending_error(ended)

    async def _leave_session(self, ending: ClientError | ClientDisconnectedError | None) -> None:
        """Let a session that has not ended wait for its client, or end it.

        The registry takes over the uplink for both. If there is nothing to do, `run` closes the uplink.
        """
        uplink = self._uplink
        is_over = self._downlink.ended is not None or isinstance(ending, SupersededError)
        if uplink is None or is_over or uplink.phase is UplinkPhase.FAILED:
            return
        has_token = self._request.acks and (self._opened.is_set() or self._request.resume is not None)
        may_return = isinstance(ending, ClientDisconnectedError) or (ending is not None and ending.retriable)
        has_closed = self._closing.done() and self._closing.result() is Closing.CLIENT
        is_resumable = has_token and may_return and not has_closed
        if is_resumable and isinstance(ending, RestartingError):
            # The client resumes at another gateway, from the last Ack: make it as late as possible.
            try:
                async with asyncio.timeout(_FLUSH_S):
                    await uplink.flush()
            except TimeoutError:
                log.warning("the last audio was not acknowledged in time")
            if self._acks is not None:
                self._acks.flush()
            return
        self._uplink = None
        self._services.detach(self.session_id, uplink, self._services.settings.resume_grace_s if is_resumable else 0)

    def _request_close(self, by: Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(by)
            self._header_over.set()

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self._phase_since_s = time.monotonic()

    def _on_durable(self, position: int) -> None:
        if self._acks is not None and self._phase is not Phase.OVER and self._is_in_session(position):
            self._acks.acknowledge(position)

    def _is_in_session(self, position: int) -> bool:
        """Return True if the transcriber will use the audio before `position`.

        Audio that was stored after the session ended is durable but not part of it, and must not be acknowledged.
        """
        ended = self._downlink.ended
        if ended is not None:
            pcm = self._parser.format
            return pcm is not None and position * 1000 // pcm.sample_rate <= ended.duration_ms
        return self._request.resume is None or self._downlink.answer.done()

    async def _durable(self, done: Awaitable[bool]) -> None:
        """Wait for Kafka. Raises `ClientError` NOT_DURABLE if Kafka fails or takes too long."""
        try:
            async with asyncio.timeout(self._services.settings.durable_timeout_s):
                if await done:
                    return
        except TimeoutError:
            pass
        raise errors.not_durable()


def _ending_error(ended: SessionEnd) -> ClientError:
    """Return the error for a client that goes on after its session has ended."""
    match ended.reason:
        case "unknown":
            return errors.unknown_session()
        case "refused":
            return errors.refused_options(ended.message)
        case _:
            return errors.session_over()
