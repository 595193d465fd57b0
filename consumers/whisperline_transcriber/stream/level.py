"""Remove the offset of a recording and raise its level, so that a quiet microphone is heard as well as a loud one.

Both are functions of the samples alone. Voice activity needs them frame by frame, from what came before: a `Level`
follows the offset, the speech and the noise. Whisper gets a whole window, which `normalize_window` brings to one level.
Integer arithmetic and whole decibels keep the results equal on every processor.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

TARGET_DB = -24  # of full scale: the level of speech after amplification
NOISE_TARGET_DB = -50  # noise is never amplified beyond this, so that it is not taken for speech
MAX_GAIN_DB = 50
SILENCE_DB = -96  # the level of digital silence: the last bit
DECAY_DB = 0.032  # by which the level of speech falls in a frame: 1 dB a second
RISE_DB = 0.128  # by which the level of noise may rise in a frame: 4 dB a second
OFFSET_SHIFT = 4  # the offset moves towards the mean of a frame by 2 ** -4 of the difference: in half a second
OFFSET_BITS = 8  # fractional bits of the offset


@dataclass(frozen=True)
class Level:
    """The offset of a recording and the levels of its speech and its noise, as far as it has been heard.

    `offset` is in units of 2 ** -OFFSET_BITS of a sample; None before the first frame. Levels are in dB of full scale.
    """

    offset: int | None = None
    speech_db: float = SILENCE_DB
    noise_db: float = 0.0

    @property
    def gain_db(self) -> int:
        """The amplification for the next frame; never negative."""
        wanted_db = min(TARGET_DB - self.speech_db, NOISE_TARGET_DB - self.noise_db)
        return max(0, min(MAX_GAIN_DB, round(wanted_db)))

    def follow(self, frame: Samples) -> tuple[Samples, "Level"]:
        """Return the next 512 samples, normalised for voice activity, and the level after them.

        The frame itself counts, so that speech that begins loudly is not clipped.
        """
        mean = (int(frame.sum(dtype=np.int64)) << OFFSET_BITS) // len(frame)
        offset = mean if self.offset is None else self.offset + ((mean - self.offset) >> OFFSET_SHIFT)
        centred = frame.astype(np.int32) - (offset >> OFFSET_BITS)
        loudness_db = level_db(centred)
        is_first = self.offset is None
        after = Level(
            offset,
            max(loudness_db, self.speech_db - DECAY_DB),
            loudness_db if is_first else min(loudness_db, self.noise_db + RISE_DB),
        )
        return _amplify(centred, after.gain_db), after


def normalize_window(samples: Samples) -> Samples:
    """Return a window for Whisper without its offset, its loudest part at `TARGET_DB`; never quieter than before.

    Raises nothing for silence, which stays silent.
    """
    if not len(samples):
        return samples
    centred = samples.astype(np.int32) - int(samples.sum(dtype=np.int64)) // len(samples)
    loudest_db = max(level_db(centred[at : at + FRAME_SAMPLES]) for at in range(0, len(samples), FRAME_SAMPLES))
    return _amplify(centred, max(0, min(MAX_GAIN_DB, round(TARGET_DB - loudest_db))))


def level_db(samples: NDArray[np.int32]) -> float:
    """Return the root mean square of int32 samples in dB of full scale."""
    wide = samples.astype(np.int64)
    mean_square = int(wide @ wide) / max(1, len(wide))
    return max(SILENCE_DB, 10 * math.log10(mean_square / 32_768**2)) if mean_square else SILENCE_DB


def _amplify(samples: NDArray[np.int32], gain_db: int) -> Samples:
    if gain_db == 0:
        return samples.clip(-32_768, 32_767).astype(np.int16)
    amplified: Samples = (samples * 10 ** (gain_db / 20)).round().clip(-32_768, 32_767).astype(np.int16)
    return amplified
