"""What a comparison runs over: the mixed clips, and one clip of about 11 s for latency."""

from dataclasses import dataclass

import soundfile
from clips import N_CLIPS, SAMPLE_RATE, BenchClip, Pcm, mixed_clips
from ours import settings
from whisperline_local.assets import demo_speech

PROBE = "probe"


@dataclass(frozen=True)
class Course:
    """Clips, and their audio by id, with the one clip as `PROBE` beside them."""

    clips: list[BenchClip]
    pcm: dict[str, Pcm]

    @classmethod
    async def mixed(cls, n_clips: int = N_CLIPS) -> "Course":
        """The clips of `mixed_clips`, and the demo's."""
        clips = mixed_clips(n_clips)
        probe, _ = soundfile.read(await demo_speech(settings()), dtype="int16")
        return cls(clips, {PROBE: probe} | {clip.id: clip.read() for clip in clips})

    @property
    def names(self) -> list[str]:
        return [clip.id for clip in self.clips]

    @property
    def duration_s(self) -> float:
        return sum(clip.duration_s for clip in self.clips)

    @property
    def probe_s(self) -> float:
        return len(self.pcm[PROBE]) / SAMPLE_RATE
