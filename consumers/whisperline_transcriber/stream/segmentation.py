"""Find where segments begin and end, as a function of the samples and of the answers to one question.

A `Segmenter` works from one replay start to the next. A replay start is a sample before which everything is decided;
the voice-activity model is reset there. The segmenter finishes with a `SegmentClosed` or a `SilenceElapsed`, and
either names the next replay start. The next segmenter begins there, so it sees the last frames before it again. A
replay that begins at a replay start therefore sees exactly what the first run saw.

A short silence is a `Pause`. What the segment's audio is, if it ends here, is settled by then: the speech and a fixed
post-roll. So it can be decoded while the silence lasts, and its text tells whether the speaker is done. That answer is
the silence that closes the segment. Without it, the segmenter takes no frame beyond the shortest possible closing, so
a slow answer delays the decision and does not change it.
"""

from dataclasses import dataclass, field

from whisperline_contracts import SegmentEnd

from whisperline_transcriber.stream.audio import SAMPLES_PER_MS
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

QUIET_FRAMES = 5  # a long segment is cut in the middle of the quietest stretch of 160 ms


@dataclass(frozen=True)
class Segmentation:
    """The rules by which speech begins and ends. The thresholds `onset` and `release` are Silero's own defaults."""

    onset: float = 0.5  # probability from which a frame is speech
    release: float = 0.35  # probability below which a frame is silence
    onset_frames: int = 4  # speech frames in a row that open a segment: 128 ms
    murmur: float = 0.1  # probability from which a frame before the onset may be its soft beginning
    pre_roll_ms: int = 300  # audio before the onset and its soft beginning that belongs to the segment
    longest_pre_roll_ms: int = 1_500  # the soft beginning and the pre-roll together are at most this long
    post_roll_ms: int = 32  # audio after the end of speech that belongs to the segment
    closing_ms: int | None = None  # silence that closes a segment; None: as long as the answer says
    shortest_closing_ms: int = 400  # the least that an answer may say
    longest_closing_ms: int = 1_500  # the most
    max_length_ms: int = 28_000  # longest segment: Whisper's 30 s less a margin
    quietest_ms: int = 12_000  # a segment that reaches the limit is cut at the quietest point of its last 12 s
    quiet_ms: int = 10_000  # after this long without speech, the replay start moves on


@dataclass(frozen=True)
class Pause:
    """A silence within a segment. If it closes the segment, that has the samples [start, end)."""

    start: int
    end: int
    speech_end: int


@dataclass(frozen=True)
class SegmentClosed:
    """A closed segment: samples [start, end), whose speech ended at `speech_end`."""

    start: int
    end: int
    speech_end: int
    reason: SegmentEnd
    replay_start: int  # the next one

    @property
    def ends_turn(self) -> bool:
        """False if the speaker was cut in the middle."""
        return self.reason is not SegmentEnd.MAX_LENGTH


@dataclass(frozen=True)
class SilenceElapsed:
    """There was no speech before `replay_start`, the next replay start."""

    replay_start: int


@dataclass
class Segmenter:
    """Finds the first segment after `replay_start`, frame by frame."""

    replay_start: int
    settings: Segmentation
    start: int | None = None  # first sample of the open segment
    _probabilities: list[float] = field(default_factory=list)
    _mean_squares: list[float] = field(default_factory=list)
    _speech_run: int = 0  # speech frames in a row, before the onset
    _silent_since: int | None = None
    _answer_ms: int | None = None  # the answer to the pause that lasts

    @property
    def now(self) -> int:
        """The end of the last frame that was pushed, as a sample position."""
        return self.replay_start + len(self._probabilities) * FRAME_SAMPLES

    @property
    def is_speaking(self) -> bool:
        """True while a segment is open and no silence has begun."""
        return self.start is not None and self._silent_since is None

    @property
    def may_be_speech(self) -> bool:
        """True while a segment is open or the last frame could be its beginning."""
        return self.start is not None or self._speech_run > 0

    @property
    def pause(self) -> Pause | None:
        """The silence that lasts within the open segment, once its audio is settled."""
        if self.start is None or self._silent_since is None:
            return None
        end = self._silent_since + self.settings.post_roll_ms * SAMPLES_PER_MS
        return Pause(self.start, end, self._silent_since) if end <= self.now else None

    @property
    def has_answer(self) -> bool:
        """True if the answer to the pause that lasts is known."""
        return self._answer_ms is not None

    @property
    def awaits_answer(self) -> bool:
        """True if no frame may be pushed before the answer to the pause is known."""
        if self.settings.closing_ms is not None or self._silent_since is None or self._answer_ms is not None:
            return False
        return self.now - self._silent_since >= self.settings.shortest_closing_ms * SAMPLES_PER_MS

    def push(self, probability: float, mean_square: float) -> SegmentClosed | SilenceElapsed | None:
        """Push the next frame of 512 samples, given its probability of speech and the mean of its squared samples."""
        self._probabilities.append(probability)
        self._mean_squares.append(mean_square)
        if self.start is not None:
            return self._push_within(self.start, probability)
        settings = self.settings
        self._speech_run = self._speech_run + 1 if probability >= settings.onset else 0
        if self._speech_run == settings.onset_frames:
            self.start = self._onset()
        elif self._speech_run == 0 and self.now - self.replay_start >= settings.quiet_ms * SAMPLES_PER_MS:
            return SilenceElapsed(self.now - settings.longest_pre_roll_ms * SAMPLES_PER_MS)
        return None

    def answer(self, closing_ms: int) -> SegmentClosed | None:
        """Take the silence that closes the segment if the pause that lasts goes on; close it if it is reached."""
        self._answer_ms = max(closing_ms, self.settings.shortest_closing_ms)
        return self._close_silence()

    def close(self, at: int, reason: SegmentEnd) -> SegmentClosed | None:
        """Close the open segment, or one that may just be beginning. `at` is `now` or less than a frame later."""
        if not self.may_be_speech:
            return None
        start = self._onset() if self.start is None else self.start
        if self._silent_since is None:
            return SegmentClosed(start, at, at, reason, at)
        end = min(at, self._silent_since + self.settings.post_roll_ms * SAMPLES_PER_MS)
        return SegmentClosed(start, end, self._silent_since, reason, at)

    def _onset(self) -> int:
        """Return the first sample of a segment whose speech frames in a row are the last ones pushed."""
        settings = self.settings
        first = len(self._probabilities) - self._speech_run
        speech_start = self.replay_start + first * FRAME_SAMPLES
        while first > 0 and self._probabilities[first - 1] >= settings.murmur:
            first -= 1
        start = self.replay_start + first * FRAME_SAMPLES - settings.pre_roll_ms * SAMPLES_PER_MS
        return max(self.replay_start, start, speech_start - settings.longest_pre_roll_ms * SAMPLES_PER_MS)

    def _push_within(self, start: int, probability: float) -> SegmentClosed | None:
        settings = self.settings
        if probability >= settings.onset:
            self._silent_since = self._answer_ms = None
        elif probability < settings.release and self._silent_since is None:
            self._silent_since = self.now - FRAME_SAMPLES
        closed = self._close_silence()
        if closed is not None or self.now - start < settings.max_length_ms * SAMPLES_PER_MS:
            return closed
        # Too long: cut where the last part is quietest. Among equally quiet places take the last, so that the segment
        # stays as long as allowed.
        frames = len(self._mean_squares)
        first = max(0, frames - settings.quietest_ms * SAMPLES_PER_MS // FRAME_SAMPLES)
        last = frames - QUIET_FRAMES
        quietness = {at: -sum(self._mean_squares[at : at + QUIET_FRAMES]) for at in range(first, last + 1)}
        quietest = max(quietness, key=lambda at: (quietness[at], at))
        end = self.replay_start + quietest * FRAME_SAMPLES + QUIET_FRAMES * FRAME_SAMPLES // 2
        return SegmentClosed(start, end, end, SegmentEnd.MAX_LENGTH, end)

    def _close_silence(self) -> SegmentClosed | None:
        """Return the closed segment if the silence has reached its closing length."""
        settings, since = self.settings, self._silent_since
        closing_ms = self._answer_ms if settings.closing_ms is None else settings.closing_ms
        if self.start is None or since is None or closing_ms is None:
            return None
        if self.now - since < closing_ms * SAMPLES_PER_MS:
            return None
        end = min(self.now, since + settings.post_roll_ms * SAMPLES_PER_MS)
        return SegmentClosed(self.start, end, since, SegmentEnd.SILENCE, end)
