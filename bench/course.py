"""The audio of a comparison: many clips for throughput, and one of about 11 s for latency."""

from dataclasses import dataclass

import soundfile
from clips import N_CLIPS, SAMPLE_RATE, BenchClip, Pcm, mixed_clips, recorded_clips
from ours import settings
from whisperline_local.assets import demo_speech

PROBE = "probe"


@dataclass(frozen=True)
class Course:
    """The clips, and their audio by id; the clip for latency has the id `PROBE`."""

    clips: list[BenchClip]
    lengths: str  # how they are distributed, for the report
    pcm: dict[str, Pcm]

    @classmethod
    async def mixed(cls, n_clips: int = N_CLIPS) -> "Course":
        """Return the clips of `mixed_clips`, and the demo's."""
        clips = mixed_clips(n_clips)
        joined = sum(len(clip.parts) > 1 for clip in clips)
        how = "neighbouring clips of one speaker joined with 0.4 s of silence"
        return await cls._of(clips, f"lengths spread evenly over 2 to 28 s; {joined} are {how}")

    @classmethod
    async def recorded(cls, n_clips: int = N_CLIPS) -> "Course":
        """Return recorded clips, at equal distances in the list and of natural lengths, and the demo's clip."""
        clips = recorded_clips()
        clips = clips[:: len(clips) // n_clips][:n_clips]
        mean_s = sum(clip.duration_s for clip in clips) / len(clips)
        return await cls._of(clips, f"2 to 28 s as they were recorded, {mean_s:.1f} s on average")

    @classmethod
    async def _of(cls, clips: list[BenchClip], lengths: str) -> "Course":
        probe, _ = soundfile.read(await demo_speech(settings()), dtype="int16")
        return cls(clips, lengths, {PROBE: probe} | {clip.id: clip.read() for clip in clips})

    @property
    def names(self) -> list[str]:
        return [clip.id for clip in self.clips]

    @property
    def duration_s(self) -> float:
        return sum(clip.duration_s for clip in self.clips)

    @property
    def probe_s(self) -> float:
        return len(self.pcm[PROBE]) / SAMPLE_RATE
