"""Admit requests to Triton. Finals are always admitted and retried until answered; everything else while there is room.

A *speculation* is a final that is decoded before it is needed, at a silence that may or may not close the segment. It
is as urgent as a final, but it is admitted only while few finals and speculations are in flight, so under load it is
asked later or not at all. Partials are shown while people speak. Their cadence follows Triton's
recent response times for live speech, so they become rarer when Triton is slow, and the sessions with the most speech
that nobody has seen yet go first. Files have slots of their own, so that live speech does not wait for them.
"""

import asyncio
import logging
import math
import time
from functools import partial
from typing import Literal

from whisperline_contracts import StreamOptions
from whisperline_runtime.retry import retrying
from whisperline_runtime.tracing import Span, SpanKind, Status, StatusCode, exemplar, tracer

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import SAMPLES_PER_MS, Samples, milliseconds
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.language import refusal

log = logging.getLogger(__name__)

FINAL_DEADLINE_S = 60.0
SPECULATION_DEADLINE_S = 10.0  # afterwards the segment's final is decoded like any other
PARTIAL_DEADLINE_S = 5.0
QUICK_S = 0.15  # Triton has room for more requests while its answers to live speech take less than this
STALE_S = 5.0  # after this long without an answer to live speech, Triton is assumed to be fast again
SMOOTHING = 0.3  # weight of the newest response time in the moving average
CADENCE_PER_ANSWER = 2.0  # new speech per partial, in response times: decoding takes at most half of a session's time
WAITING_S = 0.3  # a session that has not asked for a partial for this long does not wait for one

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

    Finals of live speech have `finals_in_flight` slots, files half as many. Speculations are admitted while fewer than
    `speculations_in_flight` finals and speculations are in flight, and partials have `partials_in_flight` slots. While
    Triton answers within `QUICK_S`, as on a GPU, speculations and partials may be as many as finals.
    """

    def __init__(self, triton: Triton, settings: Settings) -> None:
        self._triton = triton
        self._settings = settings
        finals = settings.finals_in_flight
        self._slots = {"live": asyncio.Semaphore(finals), "file": asyncio.Semaphore(max(1, finals // 2))}
        self._in_flight = dict.fromkeys(Lane, 0)
        # Sessions that were refused a partial lately, with the new speech that they have, and when they asked.
        self._waiting: dict[str, tuple[int, float]] = {}
        self._answer_s = 0.0  # moving average of Triton's response times to live speech
        self._measured_s = -math.inf

    @property
    def admits_speculation(self) -> bool:
        """True if there is room for one more speculation. Ask again for as long as the silence lasts."""
        return self._in_flight[Lane.FINAL] < self._most(self._settings.speculations_in_flight)

    def admits_partial(self, session_id: str, new_samples: int) -> bool:
        """Return True if it is this session's turn to get a partial.

        `new_samples` is the speech since the text that was shown last, at 16 kHz. Ask with every frame of new speech:
        free slots go to the sessions that have the most of it, among those that have asked within `WAITING_S`.
        """
        if new_samples < self._partial_cadence_samples:
            return False
        now_s = time.monotonic()
        self._waiting = {each: wait for each, wait in self._waiting.items() if now_s - wait[1] < WAITING_S}
        self._waiting[session_id] = new_samples, now_s
        room = self._most(self._settings.partials_in_flight) - self._in_flight[Lane.PARTIAL]
        ahead = sum(samples > new_samples for samples, _ in self._waiting.values())
        if ahead >= room or self._slots["live"].locked():
            return False
        del self._waiting[session_id]
        return True

    async def refusal(self, session_id: str, options: StreamOptions) -> str:
        """Return why the session's version of the model cannot serve its options; "" if it can.

        "" also if Triton does not answer within seconds: a session may begin without it.
        """
        try:
            known = await self._triton.languages(session_id)
        except TritonError as error:
            log.warning("%s", error)
            return ""
        return "" if known is None else refusal(options, known)

    async def decode_final(
        self, audio: Samples, request: Request, priority: Literal["live", "file"] = "live"
    ) -> Transcript:
        """Return the transcript of a closed segment; retry for as long as Triton is unavailable.

        If Triton refuses the segment because of its options, the transcript is empty and the session goes on.
        """
        lane = Lane.FILE if priority == "file" else Lane.FINAL
        with _decode_span() as span:

            def is_retriable(error: Exception) -> bool:
                return isinstance(error, TritonError) and error.is_retriable

            def note_retry(error: Exception) -> None:
                metrics.TRITON_RETRIES.inc()
                if span.is_recording():
                    span.add_event("retry", {"error.message": str(error)})

            try:
                async with self._slots[priority]:
                    span.add_event("admitted")
                    async for attempt in retrying(is_retriable, what="decoding a final", on_retry=note_retry):
                        with attempt:
                            return await self._ask(audio, request, lane, FINAL_DEADLINE_S, span)
            except TritonError as error:
                log.error("Triton refuses a segment, which stays without text: %s", error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
        return NO_TEXT

    async def speculate(self, audio: Samples, request: Request) -> Transcript | None:
        """Return what `decode_final` would return for a live segment that has not closed yet; None if Triton fails.

        Ask only if `admits_speculation`. Let it finish even if speech goes on, because Triton may leak the memory of a
        cancelled request.
        """
        return await self._ask_once(audio, request, Lane.FINAL, SPECULATION_DEADLINE_S)

    async def decode_partial(self, audio: Samples, request: Request) -> Transcript | None:
        """Return the transcript of an open segment so far, or None if Triton does not answer in time.

        Ask only if `admits_partial`.
        """
        transcript = await self._ask_once(audio, request, Lane.PARTIAL, PARTIAL_DEADLINE_S)
        if transcript is None:
            metrics.PARTIALS.labels("shed_triton").inc()
        return transcript

    async def _ask_once(self, audio: Samples, request: Request, lane: Lane, deadline_s: float) -> Transcript | None:
        with _decode_span() as span:
            try:
                return await self._ask(audio, request, lane, deadline_s, span)
            except TritonError as error:
                log.info("a %s was not decoded: %s", lane.value, error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                if error.is_retriable:  # a refusal of one session's options does not make Triton slow
                    self._note_answer(deadline_s)
                return None

    async def _ask(self, audio: Samples, request: Request, lane: Lane, deadline_s: float, span: Span) -> Transcript:
        if span.is_recording():
            span.set_attributes(
                {
                    "rpc.system": "grpc",
                    "rpc.service": "inference.GRPCInferenceService",
                    "rpc.method": "ModelStreamInfer",
                    "whisperline.lane": lane.value,
                    "whisperline.session.id": request.session_id,
                    "whisperline.audio.duration_ms": milliseconds(len(audio)),
                }
            )
        began_s = time.monotonic()
        self._in_flight[lane] += 1
        try:
            with metrics.REQUESTS_IN_FLIGHT.labels(lane.value).track_inprogress():
                transcript = await self._triton.transcribe(audio, request, lane, deadline_s)
        finally:
            self._in_flight[lane] -= 1
        elapsed_s = time.monotonic() - began_s
        metrics.DECODE_SECONDS.labels(lane.value).observe(elapsed_s, exemplar(span))
        if span.is_recording():
            span.set_attribute("whisperline.model.version", transcript.version)
        if lane is not Lane.FILE:  # files wait in the last lane: their times say nothing about live speech
            self._note_answer(elapsed_s)
        return transcript

    @property
    def _partial_cadence_samples(self) -> int:
        """The least new speech, in samples at 16 kHz, for the next partial of a session."""
        answer_s = 0.0 if self._is_stale else self._answer_s
        cadence_ms = max(self._settings.partial_cadence_ms, int(CADENCE_PER_ANSWER * 1000 * answer_s))
        return cadence_ms * SAMPLES_PER_MS

    def _most(self, limit: int) -> int:
        """Return how many requests may be in flight where `limit` is for a Triton that is not quick; 0 stays 0."""
        is_quick = not self._is_stale and self._answer_s < QUICK_S
        return max(limit, self._settings.finals_in_flight) if limit and is_quick else limit

    def _note_answer(self, elapsed_s: float) -> None:
        self._answer_s += (1 if self._is_stale else SMOOTHING) * (elapsed_s - self._answer_s)
        self._measured_s = time.monotonic()

    @property
    def _is_stale(self) -> bool:
        return time.monotonic() - self._measured_s > STALE_S
