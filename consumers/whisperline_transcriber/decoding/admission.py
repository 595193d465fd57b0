"""Who may ask Triton, and when: finals always and until they are answered, partials only where there is room.

Partials are sheddable. Their cadence follows the time that Triton's last answers to live speech took, finals' included,
so that they come less often when Triton is slow and again when it has recovered; none is asked for while a live final
waits for its turn. Files have slots of their own, so that live speech does not wait for them.
"""

import asyncio
import logging
import math
import time

from whisperline_contracts import StreamOptions

from whisperline_transcriber import metrics
from whisperline_transcriber.backoff import delays_s
from whisperline_transcriber.decoding.triton import Lane, Request, Transcript, Triton, TritonError
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.segmentation import SAMPLES_PER_MS

log = logging.getLogger(__name__)

FINAL_DEADLINE_S = 60.0
PARTIAL_DEADLINE_S = 5.0
STALE_S = 5.0  # a Triton that has not been asked for so long is taken to be fast
SMOOTHING = 0.3  # weight of the newest answer in the mean of the time that they take


class Decoder:
    """Bounds the requests that this process has under way at Triton.

    `finals_in_flight` are for finals of live speech, half as many for files, `partials_in_flight` for partials.
    """

    def __init__(self, triton: Triton, settings: Settings) -> None:
        self._triton = triton
        self._settings = settings
        finals = settings.finals_in_flight
        self._slots = {Lane.FINAL: asyncio.Semaphore(finals), Lane.FILE: asyncio.Semaphore(max(1, finals // 2))}
        self._partials = 0
        self._answer_s = 0.0
        self._noted_at_s = -math.inf

    @property
    def cadence_samples(self) -> int:
        """How much new audio, in samples at 16 kHz, makes the next partial due."""
        answer_s = 0.0 if self._stale else self._answer_s
        return max(self._settings.partial_cadence_ms, int(2_000 * answer_s)) * SAMPLES_PER_MS

    @property
    def partial_allowed(self) -> bool:
        """Whether there is room for one more partial."""
        return self._partials < self._settings.partials_in_flight and not self._slots[Lane.FINAL].locked()

    async def final(self, session_id: str, audio: Samples, options: StreamOptions) -> Transcript:
        """Return the transcript of a closed segment, however long Triton is away.

        A segment that Triton refuses (because of its options) has an empty transcript: its session goes on.
        """
        lane = Lane.FILE if options.priority == "file" else Lane.FINAL
        request = Request(session_id, lane, options.language, words=True, deadline_s=FINAL_DEADLINE_S)
        delays = delays_s()
        async with self._slots[lane]:
            while True:
                try:
                    return await self._ask(audio, request)
                except TritonError as error:
                    if not error.retriable:
                        log.error("Triton refuses a segment, which stays without text: %s", error)
                        return Transcript(text="", language="", words=[], avg_logprob=0, model="", version="")
                    log.warning("Triton did not answer (%s); trying again", error)
                    metrics.RETRIES.inc()
                    await asyncio.sleep(next(delays))

    async def partial(self, session_id: str, audio: Samples, options: StreamOptions) -> Transcript | None:
        """Return what an open segment says so far; None if Triton does not answer in time."""
        lane = Lane.PARTIAL
        request = Request(session_id, lane, options.language, words=False, deadline_s=PARTIAL_DEADLINE_S)
        self._partials += 1
        try:
            return await self._ask(audio, request)
        except TritonError as error:
            log.info("a partial was dropped: %s", error)
            metrics.SHED.labels("triton").inc()
            self._note(PARTIAL_DEADLINE_S)
            return None
        finally:
            self._partials -= 1

    async def _ask(self, audio: Samples, request: Request) -> Transcript:
        lane = request.lane.value
        began_s = time.monotonic()
        with metrics.IN_FLIGHT.labels(lane).track_inprogress():
            transcript = await self._triton.transcribe(audio, request)
        elapsed_s = time.monotonic() - began_s
        metrics.DECODE.labels(lane).observe(elapsed_s)
        if request.lane is not Lane.FILE:
            self._note(elapsed_s)
        return transcript

    def _note(self, elapsed_s: float) -> None:
        self._answer_s += (1 if self._stale else SMOOTHING) * (elapsed_s - self._answer_s)
        self._noted_at_s = time.monotonic()

    @property
    def _stale(self) -> bool:
        return time.monotonic() - self._noted_at_s > STALE_S
