"""One session, from its records to the steps that must be taken for it: synchronous, without I/O.

Records come in with `receive`. Frames go out to the voice-activity model with `frame` and come back with `heard`.
What must happen in order and durably is appended to `steps`; what only keeps the text lively is asked for with
`take_speech_started` and `partial`.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from whisperline_contracts import AudioChunk, AudioKind, Progress, SegmentEnd

from whisperline_transcriber.stream.audio import SAMPLE_RATE, AudioBuffer, Resampler, Samples, to_mono
from whisperline_transcriber.stream.hypothesis import Hypothesis
from whisperline_transcriber.stream.segmentation import SAMPLES_PER_MS, Closed, Opened, Quiet, Segmentation, Segmenter
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceState, fresh_state


@dataclass(frozen=True)
class Attach:
    """A connection has started or resumed the session with the record at `offset`."""

    offset: int
    chunk: AudioChunk
    position: int  # samples at the session's rate: where its durable audio ends


@dataclass(frozen=True)
class Transcribe:
    """A segment has closed."""

    segment: Closed


@dataclass(frozen=True)
class Advance:
    """There is no speech before `base`."""

    base: int
    speech_end_ms: int | None


@dataclass(frozen=True)
class TellFinalized:
    """A FINALIZE found no open segment."""

    position_ms: int


@dataclass(frozen=True)
class TellUtteranceEnd:
    """The silence has lasted as long as the client asked for."""

    last_word_end_ms: int


@dataclass(frozen=True)
class Finish:
    """The session is over, by the record at `offset`."""

    offset: int
    idle: bool


Step = Attach | Transcribe | Advance | TellFinalized | TellUtteranceEnd | Finish


@dataclass(frozen=True)
class Control:
    """A FINALIZE or END, and the sample at 16 kHz where it takes effect."""

    at: int
    offset: int
    kind: AudioKind
    idle: bool


IDLE_CLIENT = "transcriber"  # the client id of an END that the transcriber wrote itself


class Session:
    """The state of one session; all of it can be had again by replaying the log from the session's base."""

    def __init__(self, first: AudioChunk, segmentation: Segmentation, progress: Progress | None = None) -> None:
        self.id = first.session_id
        self.options = first.options
        self.sample_rate = first.sample_rate
        self.connection_id = first.connection_id
        self.steps: deque[Step] = deque()
        self.attached_at = progress.attached_at if progress else -1
        base = progress.base if progress else 0
        self.expected: int | None = None if base else 0  # samples at the session's rate
        self.ended = False  # the record that ends it was read: nothing is taken after it
        self.finished = False  # its end was reached
        self.hypothesis = Hypothesis()
        self.partial_at = 0  # where the last partial that was asked for ended
        self.undecided = 0  # closed segments whose final was not published yet
        self._segmentation = segmentation
        self._resampler = Resampler(first.sample_rate)
        self._buffer: AudioBuffer | None = None if base else AudioBuffer(first.sample_rate, 0)
        self._controls: deque[Control] = deque()
        self._answered = base or -1  # FINALIZEs up to this sample were answered before the session was restored
        self._speech_started: int | None = None
        self._speech_end: int | None = None
        if progress and progress.speech_end_ms is not None:
            self._speech_end = progress.speech_end_ms * SAMPLES_PER_MS
        self._restart(base)

    @classmethod
    def restored(cls, progress: Progress, segmentation: Segmentation) -> "Session":
        """Return the session as `progress` left it; it waits for the audio from its base on."""
        chunk = AudioChunk(
            session_id=progress.session_id,
            connection_id=progress.connection_id,
            client_id=progress.client_id,
            kind=AudioKind.START,
            sequence=0,
            position=0,
            sample_rate=progress.sample_rate,
            reply_partition=progress.reply_partition,
            channels=progress.channels,
            options=progress.options,
        )
        return cls(chunk, segmentation, progress)

    def receive(self, chunk: AudioChunk, offset: int) -> bool:
        """Take the next record of the session. Return whether its offset may be needed again."""
        if self.ended:
            return False
        match chunk.kind:
            case AudioKind.START | AudioKind.RESUME:
                return self._attach(chunk, offset)
            case AudioKind.AUDIO:
                return self._audio(chunk)
            case _:
                return self._control(chunk, offset)

    def frame(self) -> Samples | None:
        """Return the next 512 samples for the voice-activity model, if they are there."""
        while self._controls and self._controls[0].at < self._cursor + FRAME_SAMPLES:
            self._apply(self._controls.popleft())
        if self._buffer is None or self.finished or self._buffer.end < self._cursor + FRAME_SAMPLES:
            return None
        return self._buffer.read(self._cursor, self._cursor + FRAME_SAMPLES)

    def heard(self, frame: Samples, probability: float, state: VoiceState) -> None:
        """Take what the voice-activity model said of the frame that `frame` returned."""
        self.voice = state
        self._cursor += FRAME_SAMPLES
        values = frame.astype(np.float64)
        match self._segmenter.push(probability, float(values @ values)):
            case Opened(start):
                self._opened(start)
            case Closed() as segment:
                self._closed(segment)
            case Quiet(base):
                self.steps.append(Advance(base, self._ms(self._speech_end)))
                self._restart(base)
        self._utterance()

    def take_speech_started(self) -> int | None:
        """Return, once, the sample where the segment opened that is still to be told."""
        started, self._speech_started = self._speech_started, None
        return started

    def partial(self, cadence_samples: int) -> tuple[int, int] | None:
        """Return the open segment so far, [start, end), if a partial of it is due; it counts as asked for then."""
        segmenter = self._segmenter
        if segmenter.start is None or not segmenter.speaking or self.undecided or not self.options.interim_results:
            return None
        if self._cursor - max(segmenter.start, self.partial_at) < cadence_samples:
            return None
        self.partial_at = self._cursor
        return segmenter.start, self._cursor

    @property
    def segment_start(self) -> int | None:
        """The first sample of the open segment, if one is open."""
        return self._segmenter.start

    def samples(self, start: int, end: int) -> Samples:
        """Return a copy of the samples [start, end) at 16 kHz."""
        if self._buffer is None:
            raise IndexError("the session has no audio yet")
        return self._buffer.read(start, end).copy()

    def done(self, base: int) -> int:
        """Forget the audio before `base`; return the position (session's rate) before which nothing is needed."""
        if self._buffer is not None:
            self._buffer.drop(base)
        return self._needed(base)

    @property
    def buffered_samples(self) -> int:
        """How many samples at 16 kHz the session keeps in memory."""
        return self._buffer.end - self._buffer.start if self._buffer else 0

    @property
    def backlog_samples(self) -> int:
        """How many of them wait to be heard or decided; the rest waits for nothing but the audio that follows."""
        if self._buffer is None:
            return 0
        frames = max(0, self._buffer.end - self._cursor) // FRAME_SAMPLES
        return max(0, self._segmenter.base - self._buffer.start) + frames * FRAME_SAMPLES

    def source(self, sample: int) -> int:
        """Return the position at the session's rate of a sample at 16 kHz."""
        return self._resampler.source(sample)

    def end_ms(self) -> int:
        """Return the length of the session's audio."""
        return (self.expected or 0) * 1000 // self.sample_rate

    def _attach(self, chunk: AudioChunk, offset: int) -> bool:
        if offset <= self.attached_at:
            return False  # replayed: its effect is in the progress already
        self.attached_at = offset
        self.connection_id = chunk.connection_id
        position = self.source(self._segmenter.base) if self.expected is None else self.expected
        self.steps.append(Attach(offset, chunk, position))
        return True

    def _audio(self, chunk: AudioChunk) -> bool:
        begins = self.expected is None and self._covers_base(chunk)
        if begins:
            self._buffer = AudioBuffer(self.sample_rate, chunk.position)
            self.expected = chunk.position
        if self.expected is None or self._buffer is None or chunk.position > self.expected:
            return False  # beyond a gap: never acknowledged, so the client sends it again
        new = to_mono(chunk.data, chunk.channels)[self.expected - chunk.position :]
        self.expected += len(new)
        self._buffer.append(new)
        if begins:
            self._buffer.drop(self._segmenter.base)
        return len(new) > 0

    def _covers_base(self, chunk: AudioChunk) -> bool:
        """Whether a replay may begin with the chunk. Those before it are done, however far back the log is read."""
        base, end = self._segmenter.base, chunk.position + chunk.samples
        return self._resampler.first(chunk.position) <= base and end > self._needed(base)

    def _needed(self, base: int) -> int:
        return self._resampler.source(base) - self._resampler.half - 1  # so that a replay finds where it stood

    def _control(self, chunk: AudioChunk, offset: int) -> bool:
        if chunk.kind is AudioKind.END and (chunk.connection_id != self.connection_id or offset < self.attached_at):
            return False  # from a connection that another has replaced
        if chunk.kind is AudioKind.FINALIZE and self._needs_no_answer():
            return False
        if self._buffer is None:  # nothing came since the session was restored
            self._buffer = AudioBuffer(self.sample_rate, self._resampler.source(self._segmenter.base))
        if chunk.kind is AudioKind.END:
            self.ended = True
            self._buffer.flush()
        idle = chunk.client_id == IDLE_CLIENT
        self._controls.append(Control(self._buffer.end, offset, chunk.kind, idle))
        return True

    def _needs_no_answer(self) -> bool:
        """Whether a FINALIZE here was answered before a replay, or will be with the one that waits at this sample."""
        end = self._buffer.end if self._buffer else self._segmenter.base
        return end <= self._answered or bool(self._controls and self._controls[-1].at == end)

    def _apply(self, control: Control) -> None:
        reason = SegmentEnd.END if control.kind is AudioKind.END else SegmentEnd.FINALIZE
        segment = self._segmenter.close(control.at, reason)
        if segment is not None:
            self._closed(segment)
        elif control.kind is AudioKind.FINALIZE:
            if len(self.steps) > 1 and isinstance(self.steps[-1], TellFinalized):
                self.steps.pop()  # not begun: one answer for both
            self.steps.append(TellFinalized(control.at // SAMPLES_PER_MS))
        if control.kind is AudioKind.END:
            self.finished = True
            self.steps.append(Finish(control.offset, control.idle))

    def _opened(self, start: int) -> None:
        self._speech_started = start
        self._speech_end = None
        self.hypothesis = Hypothesis()
        self.partial_at = start

    def _closed(self, segment: Closed) -> None:
        self.steps.append(Transcribe(segment))
        self.undecided += 1
        self._speech_end = segment.speech_end
        self._restart(segment.end)

    def _utterance(self) -> None:
        wanted, since = self.options.utterance_end_ms, self._speech_end
        if wanted is None or since is None or self._segmenter.stirring:
            return
        if self._cursor - since >= wanted * SAMPLES_PER_MS:
            self.steps.append(TellUtteranceEnd(since // SAMPLES_PER_MS))
            self._speech_end = None

    def _restart(self, base: int) -> None:
        self._segmenter = Segmenter(base, self._segmentation)
        self.voice = fresh_state()
        self._cursor = base

    @staticmethod
    def _ms(sample: int | None) -> int | None:
        return None if sample is None else sample // SAMPLES_PER_MS


def milliseconds(sample: int) -> int:
    """Return the time of a sample at 16 kHz."""
    return sample * 1000 // SAMPLE_RATE
