"""Find where segments begin and end, as a function of the samples alone.

A `Segmenter` works from one replay start to the next. A replay start is a sample before which everything is decided;
the voice-activity model is reset there. The segmenter finishes with a `SegmentClosed` or a `SilenceElapsed`, and
either names the next replay start. The next segmenter begins there, so it sees the last frames before it again. A
replay that begins at a replay start therefore sees exactly what the first run saw.
"""

from dataclasses import dataclass, field

from whisperline_contracts import SegmentEnd

from whisperline_transcriber.stream.audio import SAMPLES_PER_MS
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

QUIET_FRAMES = 5  # a long segment is cut in the middle of the quietest stretch of 160 ms


@dataclass(frozen=True)
class Segmentation:
    """The rules by which speech begins and ends. The thresholds and their hysteresis are Silero's own defaults."""

    onset: float = 0.5  # probability from which a frame is speech
    release: float = 0.35  # probability below which a frame is silence
    onset_frames: int = 4  # speech frames in a row that open a segment: 128 ms
    pre_roll_ms: int = 300  # audio before the onset that belongs to the segment
    post_roll_ms: int = 200  # audio before the end of the closing silence that goes to the next segment
    end_silence_ms: int = 500  # silence that closes a segment
    max_length_ms: int = 28_000  # longest segment: Whisper's 30 s less a margin
    quietest_ms: int = 12_000  # a segment that reaches the limit is cut at the quietest point of its last 12 s
    quiet_ms: int = 10_000  # after this long without speech, the replay start moves on


@dataclass(frozen=True)
class SegmentOpened:
    """A segment has begun at sample `start`."""

    start: int


@dataclass(frozen=True)
class SegmentClosed:
    """A closed segment: samples [start, end), whose speech ended at `speech_end`. The next replay start is `end`."""

    start: int
    end: int
    speech_end: int
    reason: SegmentEnd


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
    _frames: int = 0
    _speech_run: int = 0  # speech frames in a row, before the onset
    _silent_since: int | None = None
    _mean_squares: list[float] = field(default_factory=list)

    @property
    def now(self) -> int:
        """The end of the last frame that was pushed, as a sample position."""
        return self.replay_start + self._frames * FRAME_SAMPLES

    @property
    def is_speaking(self) -> bool:
        """True while a segment is open and its closing silence has not begun."""
        return self.start is not None and self._silent_since is None

    @property
    def may_be_speech(self) -> bool:
        """True while a segment is open or the last frame could be its beginning."""
        return self.start is not None or self._speech_run > 0

    def push(self, probability: float, mean_square: float) -> SegmentOpened | SegmentClosed | SilenceElapsed | None:
        """Push the next frame of 512 samples, given its probability of speech and the mean of its squared samples."""
        self._frames += 1
        self._mean_squares.append(mean_square)
        if self.start is not None:
            return self._push_within(self.start, probability)
        settings = self.settings
        self._speech_run = self._speech_run + 1 if probability >= settings.onset else 0
        if self._speech_run == settings.onset_frames:
            self.start = self._onset()
            return SegmentOpened(self.start)
        if self._speech_run == 0 and self._frames * FRAME_SAMPLES >= settings.quiet_ms * SAMPLES_PER_MS:
            return SilenceElapsed(self.now - settings.pre_roll_ms * SAMPLES_PER_MS)
        return None

    def close(self, end: int, reason: SegmentEnd) -> SegmentClosed | None:
        """Close the open segment, or one that may just be beginning. `end` is `now` or less than a frame later."""
        if not self.may_be_speech:
            return None
        start = self._onset() if self.start is None else self.start
        return SegmentClosed(start, end, end if self._silent_since is None else self._silent_since, reason)

    def _onset(self) -> int:
        pre_roll = self.settings.pre_roll_ms * SAMPLES_PER_MS
        return max(self.replay_start, self.now - self._speech_run * FRAME_SAMPLES - pre_roll)

    def _push_within(self, start: int, probability: float) -> SegmentClosed | None:
        settings = self.settings
        if probability >= settings.onset:
            self._silent_since = None
        elif probability < settings.release and self._silent_since is None:
            self._silent_since = self.now - FRAME_SAMPLES

        since = self._silent_since
        if since is not None and self.now - since >= settings.end_silence_ms * SAMPLES_PER_MS:
            end = max(since, self.now - settings.post_roll_ms * SAMPLES_PER_MS)
            return SegmentClosed(start, end, since, SegmentEnd.SILENCE)

        if self.now - start < settings.max_length_ms * SAMPLES_PER_MS:
            return None
        # Too long: cut where the last part is quietest. Among equally quiet places take the last, so that the segment
        # stays as long as allowed.
        first = max(0, self._frames - settings.quietest_ms * SAMPLES_PER_MS // FRAME_SAMPLES)
        last = self._frames - QUIET_FRAMES
        quietness = {at: -sum(self._mean_squares[at : at + QUIET_FRAMES]) for at in range(first, last + 1)}
        quietest = max(quietness, key=lambda at: (quietness[at], at))
        end = self.replay_start + quietest * FRAME_SAMPLES + QUIET_FRAMES * FRAME_SAMPLES // 2
        return SegmentClosed(start, end, end, SegmentEnd.MAX_LENGTH)
