"""Where segments begin and end: a function of the samples alone.

A `Segmenter` lives from one base to the next. The base is the sample before which everything is done; the
voice-activity model is reset there. It ends in a `Closed` segment or in a `Quiet` stretch, each of which names the
next base, from where the next segmenter is fed, some audio of the end for a second time. So a replay that begins at
a base sees exactly what the first run saw.
"""

from dataclasses import dataclass, field

from whisperline_contracts import SegmentEnd

from whisperline_transcriber.stream.audio import SAMPLE_RATE
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

SAMPLES_PER_MS = SAMPLE_RATE // 1000


@dataclass(frozen=True)
class Segmentation:
    """When speech begins and ends. The thresholds and their hysteresis are Silero's own defaults."""

    onset: float = 0.5  # probability from which a frame is speech
    release: float = 0.35  # probability below which a frame is silence
    onset_frames: int = 4  # speech frames in a row that open a segment: 128 ms
    pre_roll_ms: int = 300  # audio before the onset that belongs to the segment
    post_roll_ms: int = 200  # audio before the end of the closing silence that goes to the next segment
    end_silence_ms: int = 500  # silence that closes a segment
    max_length_ms: int = 28_000  # longest segment: Whisper's 30 s less a margin
    quietest_ms: int = 12_000  # a segment of the longest length is cut at the quietest point of its last part
    quiet_ms: int = 10_000  # without speech, the base moves on after this


@dataclass(frozen=True)
class Opened:
    """A segment has begun at sample `start`."""

    start: int


@dataclass(frozen=True)
class Closed:
    """A segment is samples [start, end); speech in it ended at `speech_end`. The next base is `end`."""

    start: int
    end: int
    speech_end: int
    reason: SegmentEnd


@dataclass(frozen=True)
class Quiet:
    """No speech up to now: the next base is `base`."""

    base: int


@dataclass
class Segmenter:
    """Finds the first segment after `base`, frame by frame."""

    base: int
    settings: Segmentation
    start: int | None = None  # of the open segment
    _frames: int = 0
    _run: int = 0  # speech frames in a row, before the onset
    _silent_since: int | None = None
    _energies: list[float] = field(default_factory=list)

    @property
    def now(self) -> int:
        """The sample up to which frames were pushed."""
        return self.base + self._frames * FRAME_SAMPLES

    @property
    def speaking(self) -> bool:
        """Whether a segment is open and its closing silence has not begun."""
        return self.start is not None and self._silent_since is None

    @property
    def stirring(self) -> bool:
        """Whether a segment is open or the last frame could be its beginning."""
        return self.start is not None or self._run > 0

    def push(self, probability: float, energy: float) -> Opened | Closed | Quiet | None:
        """Take the next frame of 512 samples: its probability of speech and its mean square."""
        self._frames += 1
        self._energies.append(energy)
        if self.start is None:
            return self._waiting(probability)
        return self._within(probability)

    def close(self, end: int, reason: SegmentEnd) -> Closed | None:
        """Close the open segment, or one that could just be beginning, at `end`, now or a part of a frame later."""
        if not self.stirring:
            return None
        start = self._onset() if self.start is None else self.start
        return Closed(start, end, end if self._silent_since is None else self._silent_since, reason)

    def _waiting(self, probability: float) -> Opened | Quiet | None:
        self._run = self._run + 1 if probability >= self.settings.onset else 0
        if self._run == self.settings.onset_frames:
            self.start = self._onset()
            return Opened(self.start)
        if self._run == 0 and self._frames * FRAME_SAMPLES >= self.settings.quiet_ms * SAMPLES_PER_MS:
            return Quiet(self.now - self.settings.pre_roll_ms * SAMPLES_PER_MS)
        return None

    def _onset(self) -> int:
        return max(self.base, self.now - self._run * FRAME_SAMPLES - self.settings.pre_roll_ms * SAMPLES_PER_MS)

    def _within(self, probability: float) -> Closed | None:
        if probability >= self.settings.onset:
            self._silent_since = None
        elif probability < self.settings.release and self._silent_since is None:
            self._silent_since = self.now - FRAME_SAMPLES
        return self._silence() or self._too_long()

    def _silence(self) -> Closed | None:
        since = self._silent_since
        if since is None or self.now - since < self.settings.end_silence_ms * SAMPLES_PER_MS:
            return None
        end = max(since, self.now - self.settings.post_roll_ms * SAMPLES_PER_MS)
        return Closed(self._started(), end, since, SegmentEnd.SILENCE)

    def _too_long(self) -> Closed | None:
        if self.now - self._started() < self.settings.max_length_ms * SAMPLES_PER_MS:
            return None
        end = self._quietest()
        return Closed(self._started(), end, end, SegmentEnd.MAX_LENGTH)

    def _quietest(self) -> int:
        """Return the middle of the five quietest frames in a row of the last part; of equals, the last."""
        width = 5
        first = max(0, self._frames - self.settings.quietest_ms * SAMPLES_PER_MS // FRAME_SAMPLES)
        sums = [sum(self._energies[at : at + width]) for at in range(first, self._frames - width + 1)]
        quietest = len(sums) - 1 - min(range(len(sums)), key=sums[::-1].__getitem__)
        return self.base + (first + quietest) * FRAME_SAMPLES + width * FRAME_SAMPLES // 2

    def _started(self) -> int:
        assert self.start is not None  # noqa: S101 - only called within a segment
        return self.start
