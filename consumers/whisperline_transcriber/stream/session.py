"""One session: records come in, steps come out. Synchronous, without I/O.

`append_record` takes the session's records in the order of the log. `next_frames` returns frames for the
voice-activity model and `push_vad` takes its answers. Work that must happen durably and in order is queued in
`steps`. The open segment is decoded before it closes, in two ways: `take_due_speculation` returns what its final would
be decoded from if the pause that lasts closed it, `take_due_partial` its audio so far. `hear` takes the transcripts.

All state can be rebuilt by replaying the log from the session's *replay start*, the sample at 16 kHz before which
everything is decided.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Self

import numpy as np
from whisperline_contracts import AudioChunk, AudioKind, Level, Memory, Progress, SegmentEnd, StreamOptions

from whisperline_transcriber.stream.audio import AudioBuffer, Resampler, Samples, milliseconds, to_mono
from whisperline_transcriber.stream.context import Window, needed_from, window_of
from whisperline_transcriber.stream.hypothesis import Hypothesis, Transcript
from whisperline_transcriber.stream.language import language_of
from whisperline_transcriber.stream.level import follow, normalize_window
from whisperline_transcriber.stream.segmentation import Segmentation, SegmentClosed, Segmenter, SilenceElapsed
from whisperline_transcriber.stream.turns import TurnRule, closing_ms
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceState, fresh_state
from whisperline_transcriber.stream.words import session_words

NO_LEVEL = Level()  # nothing was heard yet
IDLE_CLIENT = "transcriber"  # the client id of an END that the transcriber wrote itself


@dataclass(frozen=True)
class AttachConnection:
    """A connection has started or resumed the session with the record at `offset`."""

    offset: int
    chunk: AudioChunk
    position: int  # samples at the session's rate: the end of its durable audio


@dataclass(frozen=True)
class Transcribe:
    """A segment has closed: decode it and decide its final."""

    segment: SegmentClosed
    level: Level = NO_LEVEL  # at the segment's replay start


@dataclass(frozen=True)
class MoveReplayStart:
    """There is no speech before `replay_start`."""

    replay_start: int
    level: Level = NO_LEVEL  # there


@dataclass(frozen=True)
class AnswerFinalize:
    """A FINALIZE found no open segment."""

    position_ms: int


@dataclass(frozen=True)
class SendUtteranceEnd:
    """The silence has reached the length that the client chose with `utterance_end_ms`."""

    last_word_end_ms: int


@dataclass(frozen=True)
class EndSession:
    """The record at `offset` has ended the session."""

    offset: int
    reason: Literal["closed", "idle", "refused"]
    message: str = ""  # why it was refused


Step = AttachConnection | Transcribe | MoveReplayStart | AnswerFinalize | SendUtteranceEnd | EndSession


class StepQueue:
    """The steps of a session, in order.

    The first step is in progress: the consumer reads `first` and calls `finish_first` when the step's effect is
    durable. Until then the step stays in the queue, so that a session whose last step is in progress still counts as
    busy. Only `finish_first` may remove it.
    """

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()
        self.undecided_segments = 0  # closed segments whose final is not published yet

    @property
    def first(self) -> Step | None:
        """The step in progress, or None if the queue is empty."""
        return self._steps[0] if self._steps else None

    def append(self, step: Step) -> None:
        """Queue a step. An `AnswerFinalize` replaces one that waits at the end of the queue."""
        if isinstance(step, AnswerFinalize) and len(self._steps) > 1 and isinstance(self._steps[-1], AnswerFinalize):
            self._steps.pop()
        self._steps.append(step)
        self.undecided_segments += isinstance(step, Transcribe)

    def replace_waiting(self, step: Step) -> None:
        """Queue a step in place of all that wait behind the one in progress."""
        self._steps = deque([self._steps[0], step])
        self.undecided_segments = 0

    def finish_first(self) -> None:
        """Remove the step in progress."""
        step = self._steps.popleft()
        self.undecided_segments -= isinstance(step, Transcribe)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)


@dataclass(frozen=True)
class _Control:
    """A FINALIZE or END that takes effect at sample `at` (16 kHz)."""

    at: int
    offset: int
    kind: AudioKind
    is_idle: bool


class Session:
    """The state of one session. Make it with `started` or `restored`."""

    def __init__(
        self,
        session_id: str,
        connection_id: str,
        sample_rate: int,
        options: StreamOptions,
        segmentation: Segmentation,
        *,
        replay_start: int = 0,
        attached_at: int = -1,
        last_word_end_ms: int | None = None,
        memory: Memory | None = None,
        level: Level | None = None,
    ) -> None:
        self.id = session_id
        self.connection_id = connection_id  # the connection attached last: only it can end the session
        self.sample_rate = sample_rate
        self.options = options
        self.steps = StepQueue()
        self.attached_at = attached_at  # offset of the last START or RESUME read
        self.memory = memory or Memory()  # of the finals that are decided
        self._base = replay_start  # everything before it is decided
        # Samples at the session's rate; unknown after a restore, until the record that holds the replay start is read.
        self.next_position: int | None = None if replay_start else 0
        self.has_read_end = False  # records after the END are ignored
        self._segmentation = segmentation
        self._turn_rule = TurnRule(longest_ms=segmentation.longest_closing_ms)
        self._resampler = Resampler(sample_rate)
        self._buffer: AudioBuffer | None = None if replay_start else AudioBuffer(sample_rate, 0)
        self._controls: deque[_Control] = deque()
        self.is_over = False  # the END took effect
        self._answered_up_to = replay_start or -1  # FINALIZEs up to this sample were answered before the restore
        # End of the last word told that no UtteranceEnd followed, and the end of the last for which one was queued.
        self.last_word_end_ms = last_word_end_ms
        self._utterance_end_ms = -1
        self._speculation: Window | None = None  # the last that `take_due_speculation` returned
        self._failed: Window | None = None  # the last that was not decoded although it was returned
        self._taken_end = 0  # end of the last window that was taken for a partial or a speculation
        self._heard_end = 0  # end of the last window whose transcript was heard
        self._hypothesis = Hypothesis()
        self._segmenter = Segmenter(replay_start, segmentation)
        self._cursor = replay_start  # the first sample that voice activity has not heard
        self._levels = [level or NO_LEVEL]  # at the replay start, and after each frame since
        self._ahead: deque[tuple[Samples, Level]] = deque()  # frames from the cursor on, and the level after each
        self._restart(replay_start)

    @classmethod
    def started(cls, chunk: AudioChunk, segmentation: Segmentation) -> Self:
        """Return the session that a START opens. The caller appends the START to it next."""
        return cls(chunk.session_id, chunk.connection_id, chunk.sample_rate, chunk.options, segmentation)

    @classmethod
    def restored(cls, progress: Progress, segmentation: Segmentation) -> Self:
        """Return the session as `progress` left it; it waits for the audio from its replay start on."""
        return cls(
            progress.session_id,
            progress.connection_id,
            progress.sample_rate,
            progress.options,
            segmentation,
            replay_start=progress.base,
            attached_at=progress.attached_at,
            last_word_end_ms=progress.last_word_end_ms,
            memory=progress.memory,
            level=progress.level,
        )

    def append_record(self, chunk: AudioChunk, offset: int) -> bool:
        """Append the next record of the session. Return True if a replay may need its offset again."""
        if self.has_read_end:
            return False
        match chunk.kind:
            case AudioKind.START | AudioKind.RESUME:
                if offset <= self.attached_at:
                    return False  # read again in a replay: the progress already reflects it
                self.attached_at = offset
                self.connection_id = chunk.connection_id
                position = self.next_position
                if position is None:
                    position = self.source_position(self._segmenter.replay_start)
                self.steps.append(AttachConnection(offset, chunk, position))
                return True
            case AudioKind.AUDIO:
                return self._append_audio(chunk)
            case AudioKind.FINALIZE | AudioKind.END:
                return self._append_control(chunk, offset)

    def refuse(self, offset: int, message: str) -> None:
        """End the session, which began with the record at `offset`, because its options cannot be honoured."""
        self.is_over = self.has_read_end = True
        self._controls.clear()
        self.steps.replace_waiting(EndSession(offset, "refused", message))

    def next_frames(self, most: int) -> list[Samples]:
        """Return up to `most` frames of 512 samples for the voice-activity model, at its level.

        First applies each FINALIZE or END that lies within the first frame; none lies within the others. Returns none
        if fewer samples have arrived, or if a speculation must be heard first. After `push_vad`, the frames that
        follow are still the next ones if `voice` is the state that was pushed.
        """
        if self._segmenter.awaits_answer:
            return []
        while self._controls and self._controls[0].at < self._cursor + FRAME_SAMPLES:
            control = self._controls.popleft()
            is_end = control.kind is AudioKind.END
            segment = self._segmenter.close(control.at, SegmentEnd.END if is_end else SegmentEnd.FINALIZE)
            if segment is not None:
                self._close_segment(segment)
            elif not is_end:
                self.steps.append(AnswerFinalize(milliseconds(control.at)))
            if is_end:
                self.is_over = True
                self.steps.append(EndSession(control.offset, "idle" if control.is_idle else "closed"))
        if self._buffer is None or self.is_over:
            return []
        end = min(self._buffer.end, self._controls[0].at) if self._controls else self._buffer.end
        count = min(most, max(0, end - self._cursor) // FRAME_SAMPLES)
        while len(self._ahead) < count:
            start = self._cursor + len(self._ahead) * FRAME_SAMPLES
            heard, level = follow(self._levels[-1] if not self._ahead else self._ahead[-1][1], self._read(start))
            self._ahead.append((heard, level))
        return [frame for frame, _ in islice(self._ahead, count)]

    def push_vad(self, probability: float, state: VoiceState) -> None:
        """Take the voice-activity model's answer for the first frame that `next_frames` returned."""
        values = self._read(self._cursor).astype(np.float64)
        self._levels.append(self._ahead.popleft()[1])
        self.voice = state
        self._cursor += FRAME_SAMPLES
        match self._segmenter.push(probability, float(values @ values) / FRAME_SAMPLES):
            case SegmentClosed() as segment:
                self._close_segment(segment)
            case SilenceElapsed(replay_start):
                self.steps.append(MoveReplayStart(replay_start, self._level_at(replay_start)))
                self._restart(replay_start)
        self._end_utterance()

    def take_due_speculation(self, *, eagerly: bool) -> Window | None:
        """Return the window of the segment that the pause that lasts would close, if `hear` needs its transcript now.

        Without `eagerly` that is the case once no frame can be taken without it. Returns each window once, unless
        `forget_speculation` follows.
        """
        pause = self._segmenter.pause
        if pause is None or self.steps.undecided_segments or not (eagerly or self._segmenter.awaits_answer):
            return None
        window = self.window(pause.start, pause.end)
        if window == self._speculation or (window == self._failed and not self._segmenter.awaits_answer):
            return None
        self._speculation = window
        self._taken_end = pause.end
        return window

    def forget_speculation(self, window: Window) -> None:
        """Note that a window that `take_due_speculation` returned was not decoded.

        It returns the window again once no frame can be taken without it.
        """
        if self._speculation == window:
            self._speculation, self._failed = None, window

    def take_due_partial(self, is_due: Callable[[int], bool]) -> Window | None:
        """Return the window of the open segment so far if a partial is due, else None.

        `is_due` decides, given the number of samples since the last window that was taken. The window holds nothing
        before the segment, because partials are many and a longer window costs more.
        """
        segmenter = self._segmenter
        if segmenter.start is None or not segmenter.is_speaking or not self.options.interim_results:
            return None
        if self.steps.undecided_segments or not is_due(self._cursor - max(segmenter.start, self._taken_end)):
            return None
        self._taken_end = self._cursor
        language = language_of(self.options, self.memory.languages, self._cursor - segmenter.start)
        return Window(segmenter.start, segmenter.start, self._cursor, language=language)

    def hear(self, window: Window, transcript: Transcript) -> Hypothesis | None:
        """Take the transcript of a window of the open segment; return what is known of the segment's text.

        Returns None if the segment has closed, or closes now, or if the transcript of more of it was heard already.
        """
        segmenter = self._segmenter
        if segmenter.start != window.segment_start or self.steps.undecided_segments or window.end < self._heard_end:
            return None
        self._heard_end = window.end
        heard = transcript.shifted(milliseconds(window.start))
        pause = segmenter.pause
        if pause is None or pause.end != window.end:
            self._hypothesis = self._hypothesis.extend(heard)
        else:
            self._hypothesis = self._hypothesis.correct(heard)
            start_ms, end_ms = milliseconds(window.segment_start), milliseconds(window.end)
            words = session_words(heard.words, audio_start_ms=0, start_ms=start_ms, end_ms=end_ms)
            if words and words[-1].end_ms > self._utterance_end_ms:
                self.last_word_end_ms = words[-1].end_ms
            segment = segmenter.answer(closing_ms(transcript, window.segment_start, self.memory.said, self._turn_rule))
            if segment is not None:
                self._close_segment(segment)
                return None
            self._end_utterance()
        return self._hypothesis

    def window(self, start: int, end: int) -> Window:
        """Return what is decoded for a segment [start, end), given the finals that are decided."""
        return window_of(self.memory, start, end, language_of(self.options, self.memory.languages, end - start))

    def told_until(self, last_word_end_ms: int) -> int | None:
        """Return the end of a final's last word, or None if its UtteranceEnd was queued before the final."""
        return last_word_end_ms if last_word_end_ms > self._utterance_end_ms else None

    def decided(self, progress: Progress) -> int:
        """Take what the log has decided; return the position before which a replay needs no audio.

        The position is in samples at the session's rate.
        """
        self.memory = progress.memory
        self._base = progress.base
        if progress.final is not None:  # others only carry what the session knew before
            self.last_word_end_ms = progress.last_word_end_ms
        needed = needed_from(self.memory, self._base)
        if self._buffer is not None:
            self._buffer.drop(needed)
        return self._first_needed(needed)

    @property
    def awaits_answer(self) -> bool:
        """True if no frame can be taken before a speculation is heard."""
        return self._segmenter.awaits_answer

    def read(self, window: Window) -> Samples:
        """Return the samples of a window at 16 kHz, at one level. Raises `IndexError` if they are not in memory."""
        if self._buffer is None:
            raise IndexError("the session has no audio yet")
        return normalize_window(self._buffer.read(window.start, window.end))

    @property
    def buffered_samples(self) -> int:
        """The number of samples at 16 kHz in memory."""
        return self._buffer.end - self._buffer.start if self._buffer else 0

    @property
    def untranscribed_samples(self) -> int:
        """The number of samples at 16 kHz that wait for voice activity or for a decision.

        Audio of an open segment that voice activity has processed is not counted: it only waits for further audio.
        """
        if self._buffer is None:
            return 0
        undecided = self._segmenter.replay_start - self._base
        frames = max(0, self._buffer.end - self._cursor) // FRAME_SAMPLES
        return undecided + frames * FRAME_SAMPLES

    @property
    def duration_ms(self) -> int:
        """The length of the session's audio so far, in milliseconds."""
        return (self.next_position or 0) * 1000 // self.sample_rate

    def source_position(self, sample: int) -> int:
        """Return the position, at the session's rate, of a sample at 16 kHz."""
        return self._resampler.source(sample)

    def _first_needed(self, sample: int) -> int:
        # The resampler's window reaches back, and a replay must compute exactly the same samples.
        return self._resampler.source(sample) - self._resampler.half - 1

    def _append_audio(self, chunk: AudioChunk) -> bool:
        needed = needed_from(self.memory, self._base)
        begins_replay = (
            self.next_position is None
            # True for the first record that determines the first sample that is needed. Audio before it is decided,
            # however far back the log is read.
            and self._resampler.first(chunk.position) <= needed
            and chunk.position + chunk.samples > self._first_needed(needed)
        )
        if begins_replay:
            self._buffer = AudioBuffer(self.sample_rate, chunk.position)
            self.next_position = chunk.position
        if self.next_position is None or self._buffer is None or chunk.position > self.next_position:
            return False  # after a gap: this audio was never acknowledged, so the client sends it again
        # A client that resumed may send audio twice: skip the samples before `next_position`.
        new = to_mono(chunk.data, chunk.channels)[self.next_position - chunk.position :]
        self.next_position += len(new)
        self._buffer.append(new)
        if begins_replay:
            self._buffer.drop(needed)
        return len(new) > 0

    def _append_control(self, chunk: AudioChunk, offset: int) -> bool:
        is_end = chunk.kind is AudioKind.END
        if is_end and (chunk.connection_id != self.connection_id or offset < self.attached_at):
            return False  # an END from a connection that another one has replaced
        end = self._buffer.end if self._buffer else self._segmenter.replay_start
        if not is_end and end <= self._answered_up_to:
            return False  # a FINALIZE that was answered before the replay
        if not is_end and self._controls and self._controls[-1].at == end:
            return False  # a FINALIZE or END already waits at the same sample and answers this one, too
        if self._buffer is None:  # no audio has come since the session was restored
            self._buffer = AudioBuffer(self.sample_rate, self._resampler.source(self._segmenter.replay_start))
        if is_end:
            self.has_read_end = True
            self._buffer.flush()
        self._controls.append(_Control(self._buffer.end, offset, chunk.kind, chunk.client_id == IDLE_CLIENT))
        return True

    def _read(self, start: int) -> Samples:
        """Return a view of the frame that begins at `start`."""
        if self._buffer is None:
            raise IndexError("the session has no audio yet")
        return self._buffer.read(start, start + FRAME_SAMPLES)

    def _level_at(self, sample: int) -> Level:
        """Return the level before a sample that voice activity has passed since the replay start."""
        return self._levels[min(len(self._levels) - 1, (sample - self._segmenter.replay_start) // FRAME_SAMPLES)]

    def _close_segment(self, segment: SegmentClosed) -> None:
        self.steps.append(Transcribe(segment, self._level_at(segment.replay_start)))
        self._restart(segment.replay_start)

    def _end_utterance(self) -> None:
        """Queue an UtteranceEnd if the silence behind the last word has reached the length that the client chose."""
        wanted_ms, last_ms = self.options.utterance_end_ms, self.last_word_end_ms
        if wanted_ms is None or last_ms is None or self.steps.undecided_segments:
            return
        # At a pause, the words before it are known once its transcript was heard.
        is_quiet = self._segmenter.has_answer or not self._segmenter.may_be_speech
        if is_quiet and milliseconds(self._cursor) - last_ms >= wanted_ms:
            self.steps.append(SendUtteranceEnd(last_ms))
            self._utterance_end_ms, self.last_word_end_ms = last_ms, None

    def _restart(self, replay_start: int) -> None:
        self._levels = [self._level_at(replay_start)]
        self._ahead.clear()
        self._segmenter = Segmenter(replay_start, self._segmentation)
        self.voice = fresh_state()
        self._cursor = replay_start
        self._speculation = None
        self._taken_end = self._heard_end = replay_start
        self._hypothesis = Hypothesis()
