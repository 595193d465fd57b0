"""Clips of real speech, listed in a `manifest.jsonl`: for parity, word error rates and tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from whisperline_models.engine.audio import SAMPLE_RATE
from whisperline_models.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """One recording: `text` is what is said, "" for none; `language` as ISO 639-1, "zxx" without speech."""

    id: str
    path: Path
    language: str
    text: str
    duration_s: float

    def read(self) -> NDArray[np.int16]:
        """The samples as 16 kHz mono PCM."""
        samples, rate = soundfile.read(self.path, dtype="float64", always_2d=True)
        resampled = _resample(samples.mean(axis=1), rate)
        pcm: NDArray[np.int16] = np.clip(np.rint(resampled * 32767), -32768, 32767).astype(np.int16)
        return pcm


def read_manifest(folder: Path, languages: set[str], longest_s: float = 30.0) -> list[Clip]:
    """The clips of a folder in these languages, up to this length, in the manifest's order."""
    if not (folder / "manifest.jsonl").is_file():
        raise SourceError(f"{folder} has no manifest.jsonl: set WHISPERLINE_SPEECH_DIR to a folder of clips")
    rows = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return [
        Clip(row["id"], folder / row["path"], row["language"], row["text"], row["duration_s"])
        for row in rows
        if row["language"] in languages and row["duration_s"] <= longest_s
    ]


# of Debian's packages asterisk-core-sounds-{fr,es,it}-wav: studio voices at 8 kHz, in the band of a telephone
PROMPTS_DIR = Path("/usr/share/asterisk/sounds")
_VOICES = {"fr": "fr_CA_f_June", "es": "es_MX_f_Allison", "it": "it_IT_m_Carlo"}


def read_prompts(language: str, n_clips: int, folder: Path = PROMPTS_DIR) -> list[Clip]:
    """Telephone prompts of 2.5 to 30 s in a language, spread over the set; none where the folder lacks them."""
    clips = [
        Clip(f"{language}/{path.stem}", path, language, "", duration_s)
        for path in sorted((folder / _VOICES[language]).glob("*.wav"))
        if 2.5 <= (duration_s := soundfile.info(path).duration) <= 30
    ]
    return clips[:: max(1, len(clips) // n_clips)][:n_clips]


def _resample(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Band-limited resampling of a whole clip to 16 kHz by its spectrum."""
    if rate == SAMPLE_RATE:
        return samples
    n = round(samples.size * SAMPLE_RATE / rate)
    spectrum = np.zeros(n // 2 + 1, np.complex128)
    source = np.fft.rfft(samples)
    kept = min(spectrum.size, source.size)
    spectrum[:kept] = source[:kept]
    return np.fft.irfft(spectrum, n) * (n / samples.size)
