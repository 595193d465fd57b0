"""Choose the clips for comparisons: real English speech of 2 to 28 s, the same in every run."""

import itertools
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from whisperline_models.gate import Clip, read_manifest, scoring

CHECKOUT = Path(__file__).parents[1]
SPEECH_DIR = Path(os.environ.get("WHISPERLINE_SPEECH_DIR", CHECKOUT.parent / "shared" / "speech"))
SAMPLE_RATE = 16000
SHORTEST_S, LONGEST_S = 2.0, 28.0
N_CLIPS = 32
GAP_S = 0.4  # silence between clips that are joined
JOIN_COST_S = 0.5  # a joined clip must match the wanted length better than a single one by at least this much
NOT_WANTED = ("en_fsdd", "phone")  # these have single digits, and two voices on two channels

Pcm = NDArray[np.int16]


@dataclass(frozen=True)
class BenchClip:
    """Mono 16 kHz PCM with its text; `parts` are the recordings that it was joined from."""

    id: str
    parts: tuple[Clip, ...]

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)

    @property
    def duration_s(self) -> float:
        return sum(part.duration_s for part in self.parts) + GAP_S * (len(self.parts) - 1)

    def read(self) -> Pcm:
        """Return the samples."""
        gap = np.zeros(int(GAP_S * SAMPLE_RATE), np.int16)
        pieces = itertools.chain.from_iterable((gap, part.read()) for part in self.parts)
        return np.concatenate(list(pieces)[1:])


def recorded_clips() -> list[BenchClip]:
    """Return every English clip with a suitable length as it was recorded."""
    clips = read_manifest(SPEECH_DIR, {"en"}, LONGEST_S)
    wanted = (c for c in clips if c.duration_s >= SHORTEST_S and c.path.parent.name not in NOT_WANTED)
    return [BenchClip(clip.id, (clip,)) for clip in wanted]


def mixed_clips(n_clips: int = N_CLIPS) -> list[BenchClip]:
    """Return clips whose lengths are spread evenly over 2 to 28 s, short and long in turn, without repetitions.

    There are few long recordings, so most clips of over 15 s are joined from neighbouring clips of one speaker, with
    `GAP_S` of silence between them.
    """
    candidates = recorded_clips() + _joined(recorded_clips())
    chosen: list[BenchClip] = []
    for target_s in np.linspace(LONGEST_S, SHORTEST_S, n_clips):
        used = {part.id for clip in chosen for part in clip.parts}
        free = [clip for clip in candidates if not used & {part.id for part in clip.parts}]
        # A joined clip must be nearer to the wanted length by JOIN_COST_S than a single recording.
        costs = [abs(clip.duration_s - float(target_s)) + JOIN_COST_S * (len(clip.parts) > 1) for clip in free]
        chosen.append(free[int(np.argmin(costs))])
    step = max(1, n_clips // 4) + 1  # coprime to the usual counts, so that neighbours differ in length
    order = sorted(range(n_clips), key=lambda index: (index * step) % n_clips)
    return [chosen[index] for index in order]


def clips_near(duration_s: float, n_clips: int) -> list[BenchClip]:
    """Return the recorded clips whose lengths are nearest to this one."""
    return sorted(recorded_clips(), key=lambda clip: abs(clip.duration_s - duration_s))[:n_clips]


def word_error_rate(clips: list[BenchClip], texts: dict[str, str]) -> float:
    """Return the word error rate in per cent, after Whisper's own normalisation of English."""
    said = [replace(clip.parts[0], id=clip.id, text=clip.text) for clip in clips]
    return 100 * scoring.word_error_rate(said, texts)


def _joined(clips: list[BenchClip]) -> list[BenchClip]:
    """Join every run of two or more neighbouring clips of one speaker that is not too long."""
    rows = map(json.loads, (SPEECH_DIR / "manifest.jsonl").read_text().splitlines())
    speakers = {row["id"]: row.get("speaker") for row in rows}
    found = []
    for _, neighbours in itertools.groupby(clips, key=lambda clip: speakers[clip.id] or clip.id):
        parts = [clip.parts[0] for clip in neighbours]
        for first, last in itertools.combinations(range(len(parts) + 1), 2):
            run = BenchClip("+".join(part.id for part in parts[first:last]), tuple(parts[first:last]))
            if len(run.parts) > 1 and run.duration_s <= LONGEST_S:
                found.append(run)
    return found
