"""Clips of recorded speech, listed in a `manifest.jsonl`, and the sets of clips that a gate uses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from whisperline_models.engine.audio import SAMPLE_RATE
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import SourceError
from whisperline_models.files import sha256_of_file
from whisperline_models.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_SPEECH = "zxx"  # ISO 639-2: no linguistic content
LONGEST_S = 30.0  # longer clips with speech are left out; longer ones without are cut
LONGEST_NON_SPEECH_S = 600.0  # longer clips without speech are left out
CLIPS_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Clip:
    """One recording: `text` is the transcript, `language` an ISO 639-1 code. Without speech, they are "" and "zxx"."""

    id: str
    path: Path
    language: str
    text: str
    duration_s: float

    def read(self) -> NDArray[np.int16]:
        """Return the samples as 16 kHz mono PCM."""
        samples, rate = soundfile.read(self.path, dtype="float64", always_2d=True)
        mono: NDArray[np.float64] = samples.mean(axis=1)
        if rate != SAMPLE_RATE:
            # band-limited resampling of the whole clip: cut its spectrum, or extend it with zeros
            n_samples = round(mono.size * SAMPLE_RATE / rate)
            spectrum = np.zeros(n_samples // 2 + 1, np.complex128)
            source = np.fft.rfft(mono)
            kept = min(spectrum.size, source.size)
            spectrum[:kept] = source[:kept]
            mono = np.fft.irfft(spectrum, n_samples) * (n_samples / mono.size)
        pcm: NDArray[np.int16] = np.clip(np.rint(mono * 32767), -32768, 32767).astype(np.int16)
        return pcm


def read_manifest(folder: Path, languages: set[str] | None, longest_s: float = LONGEST_S) -> list[Clip]:
    """Return the clips of a folder in these languages, up to this length, in the manifest's order.

    `languages` None means every language, but no clip without speech. Raises `SourceError` if there is no manifest.
    """
    path = folder / CLIPS_MANIFEST
    if not path.is_file():
        raise SourceError(f"{folder} has no {CLIPS_MANIFEST}: set WHISPERLINE_SPEECH_DIR to a folder of clips")
    clips = [
        Clip(row["id"], folder / row["path"], row["language"], row["text"], row["duration_s"])
        for row in map(json.loads, path.read_text().splitlines())
    ]
    return [
        clip
        for clip in clips
        if clip.duration_s <= longest_s
        and (clip.language in languages if languages is not None else clip.language != NO_SPEECH)
    ]


@dataclass(frozen=True)
class ClipSet:
    """A named set for a gate: clips with speech in the model's languages, and clips without speech."""

    name: str
    sha256: str
    spoken: tuple[Clip, ...]
    unspoken: tuple[Clip, ...]

    @classmethod
    def read(cls, path: Path, languages: set[str] | None, most: int) -> ClipSet:
        """Read `path`, a manifest.jsonl or its folder, and take at most `most` of either kind, spread over the set.

        `languages` None means every language of the set. Raises `SourceError` if one kind is missing.
        """
        folder = path.parent if path.is_file() else path
        # the gate records the name and the checksum of the whole set, even if only some clips are taken
        spoken = take_spread(read_manifest(folder, languages), most)
        if not spoken:
            raise SourceError(
                f"{folder} has no speech of up to 30 s in {', '.join(sorted(languages or {'any language'}))}"
            )
        unspoken = take_spread(read_manifest(folder, {NO_SPEECH}, LONGEST_NON_SPEECH_S), most)
        if not unspoken:
            raise SourceError(f"{folder} has no clip without speech (language {NO_SPEECH}): the gate needs some")
        digest = sha256_of_file(folder / CLIPS_MANIFEST)
        return cls(folder.resolve().name, digest, tuple(spoken), tuple(unspoken))

    @property
    def speech_s(self) -> float:
        """The length of all clips with speech."""
        return sum(clip.duration_s for clip in self.spoken)

    @property
    def audio_s(self) -> float:
        """The length of the audio that the gate runs: all clips, each up to 30 s."""
        return sum(min(clip.duration_s, LONGEST_S) for clip in (*self.spoken, *self.unspoken))


def languages_of(version: Path) -> set[str] | None:
    """Return the languages of the clips to choose for a version, None for a multilingual one. Raises `VersionError`."""
    n_vocab = Manifest.read(version).dimensions["n_vocab"]
    tokenizer = Tokenizer.from_json((version / "tokenizer.json").read_bytes(), n_vocab)
    return None if tokenizer.is_multilingual else set(tokenizer.languages)


def take_spread(clips: list[Clip], most: int) -> list[Clip]:
    """Return at most `most` clips, spread over the list."""
    return clips[:: max(1, len(clips) // most)][:most]
