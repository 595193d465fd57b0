"""Admit requests to Triton. Finals are always admitted and retried until answered; partials only while there is room.

Partials may be shed. Their cadence follows Triton's recent response times for live speech, finals included, so they
become rarer when Triton is slow and more frequent when it recovers. No partial is requested while a live final waits
for a slot. Files have slots of their own, so that live speech does not wait for them.
"""

import asyncio
import logging
import math
import time
from functools import partial

from whisperline_contracts import StreamOptions
from whisperline_runtime.retry import retrying
from whisperline_runtime.tracing import Span, SpanKind, Status, StatusCode, exemplar, tracer

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import SAMPLES_PER_MS, Samples, milliseconds
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript

log = logging.getLogger(__name__)

FINAL_DEADLINE_S = 60.0
SPECULATION_DEADLINE_S = 5.0
PARTIAL_DEADLINE_S = 5.0
STALE_S = 5.0  # after this long without an answer to live speech, Triton is assumed to be fast again
SMOOTHING = 0.3  # weight of the newest response time in the moving average
CADENCE_PER_ANSWER = 2.0  # new audio per partial, in response times: decoding takes at most half of a session's time

# An exception's text could hold words that were spoken, so spans record none by themselves.
_decode_span = partial(
    tracer(__name__).start_as_current_span,
    "decode",
    kind=SpanKind.CLIENT,
    record_exception=False,
    set_status_on_exception=False,
)

NO_TEXT = Transcript(text="", language="", words=[], avg_logprob=0, model="", version="")


class Admission:
    """Limits the requests that this process has in flight at Triton.

    Finals of live speech have `finals_in_flight` slots, files half as many, and partials `partials_in_flight`.
    """

    def __init__(self, triton: Triton, settings: Settings) -> None:
        self._triton = triton
        self._settings = settings
        finals = settings.finals_in_flight
        self._slots = {Lane.FINAL: asyncio.Semaphore(finals), Lane.FILE: asyncio.Semaphore(max(1, finals // 2))}
        self._partials = 0
        self._answer_s = 0.0  # moving average of Triton's response times to live speech
        self._measured_s = -math.inf

    @property
    def partial_cadence_samples(self) -> int:
        """The new audio, in samples at 16 kHz, that makes the next partial due."""
        answer_s = 0.0 if self._is_stale else self._answer_s
        cadence_ms = max(self._settings.partial_cadence_ms, int(CADENCE_PER_ANSWER * 1000 * answer_s))
        return cadence_ms * SAMPLES_PER_MS

    @property
    def admits_partial(self) -> bool:
        """True if there is room for one more partial."""
        return self._partials < self._settings.partials_in_flight and not self._slots[Lane.FINAL].locked()

    @property
    def admits_speculation(self) -> bool:
        """True if there is room for work that may turn out to be in vain."""
        return not self._slots[Lane.FINAL].locked()

    async def decode_final(self, session_id: str, audio: Samples, window: Window, options: StreamOptions) -> Transcript:
        """Return the transcript of a closed segment; retry for as long as Triton is unavailable.

        If Triton refuses the segment because of its options, the transcript is empty and the session goes on.
        """
        lane = Lane.FILE if options.priority == "file" else Lane.FINAL
        request = Request(session_id, lane, window, words=True, deadline_s=FINAL_DEADLINE_S, keyterms=options.keyterms)
        with _decode_span() as span:

            def is_retriable(error: Exception) -> bool:
                return isinstance(error, TritonError) and error.is_retriable

            def note_retry(error: Exception) -> None:
                metrics.TRITON_RETRIES.inc()
                if span.is_recording():
                    span.add_event("retry", {"error.message": str(error)})

            try:
                async with self._slots[lane]:
                    span.add_event("admitted")
                    async for attempt in retrying(is_retriable, what="decoding a final", on_retry=note_retry):
                        with attempt:
                            return await self._ask(audio, request, span)
            except TritonError as error:
                log.error("Triton refuses a segment, which stays without text: %s", error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
        return NO_TEXT

    async def speculate(
        self, session_id: str, audio: Samples, window: Window, options: StreamOptions
    ) -> Transcript | None:
        """Return what `decode_final` would, or None if Triton does not answer in time."""
        request = Request(
            session_id, Lane.FINAL, window, words=True, deadline_s=SPECULATION_DEADLINE_S, keyterms=options.keyterms
        )
        with _decode_span() as span:
            try:
                async with self._slots[Lane.FINAL]:
                    return await self._ask(audio, request, span)
            except TritonError as error:
                log.info("a speculation was dropped: %s", error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                return None

    async def decode_partial(
        self, session_id: str, audio: Samples, window: Window, options: StreamOptions
    ) -> Transcript | None:
        """Return the transcript of an open segment so far, or None if Triton does not answer in time."""
        request = Request(
            session_id, Lane.PARTIAL, window, words=False, deadline_s=PARTIAL_DEADLINE_S, keyterms=options.keyterms
        )
        self._partials += 1
        with _decode_span() as span:
            try:
                return await self._ask(audio, request, span)
            except TritonError as error:
                log.info("a partial was dropped: %s", error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                metrics.PARTIALS.labels("shed_triton").inc()
                self._note_answer(PARTIAL_DEADLINE_S)
                return None
            finally:
                self._partials -= 1

    async def _ask(self, audio: Samples, request: Request, span: Span) -> Transcript:
        lane = request.lane.value
        if span.is_recording():
            span.set_attributes(
                {
                    "rpc.system": "grpc",
                    "rpc.service": "inference.GRPCInferenceService",
                    "rpc.method": "ModelStreamInfer",
                    "whisperline.lane": lane,
                    "whisperline.session.id": request.session_id,
                    "whisperline.audio.duration_ms": milliseconds(len(audio)),
                }
            )
        began_s = time.monotonic()
        with metrics.REQUESTS_IN_FLIGHT.labels(lane).track_inprogress():
            transcript = await self._triton.transcribe(audio, request)
        elapsed_s = time.monotonic() - began_s
        metrics.DECODE_SECONDS.labels(lane).observe(elapsed_s, exemplar(span))
        if span.is_recording():
            span.set_attribute("whisperline.model.version", transcript.version)
        if request.lane is not Lane.FILE:  # files wait in the last lane: their times say nothing about live speech
            self._note_answer(elapsed_s)
        return transcript

    def _note_answer(self, elapsed_s: float) -> None:
        self._answer_s += (1 if self._is_stale else SMOOTHING) * (elapsed_s - self._answer_s)
        self._measured_s = time.monotonic()

    @property
    def _is_stale(self) -> bool:
        return time.monotonic() - self._measured_s > STALE_S
