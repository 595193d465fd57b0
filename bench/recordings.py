"""Read the recordings of the speech folder as a live client would send them: one channel each, at their own rate."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from clips import SPEECH_DIR, Pcm
from whisperline_transcriber.stream.audio import AudioBuffer

NO_SPEECH = "zxx"  # the manifest's language of recordings without speech


@dataclass(frozen=True)
class Recording:
    """One voice, or one channel of a call. `source` is its folder; `text` the reference, empty without speech."""

    id: str
    source: str
    path: Path
    channel: int | None  # None: the mean of all channels
    language: str
    text: str
    duration_s: float
    sha256: str  # of the file
    tags: frozenset[str]

    def read(self) -> tuple[Pcm, int]:
        """Return the samples, (n,) int16, and their rate in Hz."""
        samples, rate = soundfile.read(self.path, dtype="int16", always_2d=True)
        if self.channel is not None:
            return samples[:, self.channel].copy(), rate
        mono: Pcm = samples.mean(axis=1).round().astype(np.int16)
        return mono, rate

    def read_16_khz(self) -> Pcm:
        """Return the samples at 16 kHz, converted as the transcriber converts a session's."""
        pcm, rate = self.read()
        buffer = AudioBuffer(rate, 0)
        buffer.append(pcm)
        buffer.flush()
        return buffer.read(0, buffer.end).copy()


def read_recordings() -> list[Recording]:
    """Return every recording of the manifest. The channels of a call whose manifest has their texts come apart."""
    found = []
    for row in map(json.loads, (SPEECH_DIR / "manifest.jsonl").read_text().splitlines()):
        texts = row.get("channel_text") or row.get("channels_text")
        channels = (
            [(f"/{index}", index, text) for index, text in enumerate(texts)] if texts else [("", None, row["text"])]
        )
        for suffix, index, text in channels:
            path = SPEECH_DIR / row["path"]
            found.append(
                Recording(
                    id=row["id"] + suffix,
                    source=path.parent.name,
                    path=path,
                    channel=index,
                    language=row["language"],
                    text=text,
                    duration_s=row["duration_s"],
                    sha256=row["sha256"],
                    tags=frozenset(row["tags"]),
                )
            )
    return found
