"""Cut single utterances out of the recordings, each with the moment at which its speaker really stops.

The end of speech is found in the samples alone, so that no part of the system decides what its own delay counts from.
It is the end of the last 10 ms frame that is louder than a threshold and has another such frame within 100 ms before
it, since a click alone is not speech. The threshold lies a third of the way, in dB, from the recording's quiet frames
to its loud ones. A recording on which the voice-activity model disagrees, for example because a telephone is put down,
is left out.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from clips import SAMPLE_RATE, SPEECH_DIR, Pcm
from numpy.typing import NDArray
from ours import CACHE
from recordings import Recording, read_recordings
from whisperline_local.assets import SILERO
from whisperline_transcriber.stream.segmentation import Segmentation
from whisperline_transcriber.stream.vad import FRAME_SAMPLES, VoiceActivity, fresh_state

FRAME = SAMPLE_RATE // 100
QUIET, LOUD = 10, 95  # percentiles of the frames' levels
THRESHOLD = 1 / 3  # of the way from quiet to loud, in dB
NEIGHBOURS = 10  # frames before a loud frame, among which must be another
SHORTEST_S, LONGEST_S = 1.5, 9.0
PAUSE_IN_TURN_S = 1.0  # a speaker of a call who goes on within this time has not ended the turn
TURN_MARGIN_S = 0.3  # of a call's channel before and after the times of a turn
AGREEMENT_S = 0.2  # between the rule and the voice-activity model
ROOM_S = 0.3  # of the quietest part of an utterance, repeated as the silence behind it


@dataclass(frozen=True)
class Utterance:
    """What one speaker says in one go, 16 kHz: speech up to `end_s`, then as much of the recording as follows."""

    id: str
    speaker: str
    text: str
    samples: Pcm
    end_s: float

    def with_silence(self, silence_s: float) -> Pcm:
        """Return the samples, continued with the room's noise until `silence_s` after the end of speech."""
        missing = round((self.end_s + silence_s) * SAMPLE_RATE) - len(self.samples)
        if missing <= 0:
            return self.samples[:missing] if missing else self.samples
        noise = room_noise(self.samples)
        return np.concatenate([self.samples, np.resize(np.concatenate([noise, noise[::-1]]), missing)])


def levels(samples: Pcm) -> NDArray[np.float64]:
    """Return the level of each whole frame of 10 ms, in dB of full scale."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64) / 32_768
    level: NDArray[np.float64] = 10 * np.log10((frames**2).mean(axis=1) + 1e-10)
    return level


def end_of_speech_s(samples: Pcm) -> float:
    """Return when the speech in `samples` (16 kHz) ends, in seconds, by the rule above."""
    level = levels(samples)
    quiet, loud = np.percentile(level, [QUIET, LOUD])
    loud_frames = np.flatnonzero(level > quiet + THRESHOLD * (loud - quiet))
    backed = [at for before, at in itertools.pairwise(loud_frames) if at - before <= NEIGHBOURS]
    return float(backed[-1] + 1) * FRAME / SAMPLE_RATE if backed else 0.0


def room_noise(samples: Pcm) -> Pcm:
    """Return the quietest ROOM_S of the samples."""
    level = levels(samples)
    frames = min(len(level), round(ROOM_S * SAMPLE_RATE / FRAME))
    sums = np.convolve(level, np.ones(frames), "valid")
    first = int(np.argmin(sums)) * FRAME
    return samples[first : first + frames * FRAME]


def utterances(per_kind: int) -> list[Utterance]:
    """Return as many utterances of each kind: read aloud, said on the telephone, and turns of telephone calls.

    Their speakers differ as far as there are enough of them. The kinds come in turn, so that any run of them is mixed.
    """
    rows = {row["id"]: row for row in map(json.loads, (SPEECH_DIR / "manifest.jsonl").read_text().splitlines())}

    def whole(recordings: Iterable[Recording]) -> list[Utterance]:
        found = []
        for each in recordings:
            if each.language == "en" and each.text and SHORTEST_S < each.duration_s <= LONGEST_S:
                samples = each.read_16_khz()
                speaker = str(rows[each.id].get("speaker") or each.id)
                found.append(Utterance(each.id, speaker, each.text, samples, end_of_speech_s(samples)))
        return found

    recordings = read_recordings()
    kinds = (
        whole(each for each in recordings if "read" in each.tags),
        whole(each for each in recordings if each.source == "en_wuw"),
        [turn for each in recordings if each.source == "en_harper_valley" for turn in _turns(each, rows)],
    )
    chosen = (_different_speakers(kind, per_kind) for kind in kinds)
    return [utterance for in_turn in zip(*chosen, strict=True) for utterance in in_turn]


def _turns(channel: Recording, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Utterance]:
    """Yield the turns on one channel of a call; what a speaker says after a short pause belongs to the same turn."""
    id_, _, index = channel.id.rpartition("/")
    samples = channel.read_16_khz()
    own = [turn for turn in rows[id_]["turns"] if turn[3] and turn[3] in channel.text]
    groups: list[list[list[Any]]] = []
    for turn in own:
        if groups and turn[0] - groups[-1][-1][1] <= PAUSE_IN_TURN_S:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    for number, group in enumerate(groups):
        start_s, end_s = group[0][0] - TURN_MARGIN_S, group[-1][1] + TURN_MARGIN_S
        if SHORTEST_S < end_s - start_s <= LONGEST_S:
            part = samples[max(0, round(start_s * SAMPLE_RATE)) : round(end_s * SAMPLE_RATE)]
            text = " ".join(turn[3] for turn in group)
            yield Utterance(f"{channel.id}/{number}", f"{id_}/{index}", text, part, end_of_speech_s(part))


def _different_speakers(candidates: Sequence[Utterance], count: int) -> list[Utterance]:
    """Return the first utterance of each speaker, then the second of each, until there are `count` with a clear end."""
    turn_of: Counter[str] = Counter()
    ranked = []
    for utterance in candidates:
        ranked.append((turn_of[utterance.speaker], utterance))
        turn_of[utterance.speaker] += 1
    ranked.sort(key=lambda pair: pair[0])  # stable
    clear = (utterance for _, utterance in ranked if abs(_last_voice_s(utterance) - utterance.end_s) <= AGREEMENT_S)
    return list(itertools.islice(clear, count))


def _last_voice_s(utterance: Utterance) -> float:
    """Return when the voice-activity model last hears speech in an utterance and the silence behind it."""
    samples, state, last = utterance.with_silence(1.0), fresh_state(), 0
    for end in range(FRAME_SAMPLES, len(samples) + 1, FRAME_SAMPLES):
        ((probability, state),) = _voice_activity()([samples[end - FRAME_SAMPLES : end]], [state])
        last = end if probability >= Segmentation.onset else last
    return last / SAMPLE_RATE


@cache
def _voice_activity() -> VoiceActivity:
    return VoiceActivity(CACHE / SILERO.folder / SILERO.members[0])
