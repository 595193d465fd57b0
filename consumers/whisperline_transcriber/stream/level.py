"""Remove the offset of a recording and raise its level, so that a quiet microphone is heard as well as a loud one.

Both are functions of the samples alone. Voice activity needs them frame by frame, from what came before: a `Level` has
the offset and the levels of the speech and the noise so far. Whisper gets a whole window, which `normalize_window`
brings to one level. Integer arithmetic and whole decibels keep the results equal on every processor.
"""

import math

import numpy as np
from numpy.typing import NDArray
from whisperline_contracts import Level

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


def gain_db(level: Level) -> int:
    """Return the amplification for voice activity at a level; never negative."""
    wanted_db = min(TARGET_DB - level.speech_db, NOISE_TARGET_DB - level.noise_db)
    return max(0, min(MAX_GAIN_DB, round(wanted_db)))


def follow(level: Level, frame: Samples) -> tuple[Samples, Level]:
    """Return the next 512 samples, normalised for voice activity, and the level after them.

    The frame itself counts, so that speech that begins loudly is not clipped.
    """
    mean = (int(frame.sum(dtype=np.int64)) << OFFSET_BITS) // len(frame)
    offset = mean if level.offset is None else level.offset + ((mean - level.offset) >> OFFSET_SHIFT)
    centred = frame.astype(np.int32) - (offset >> OFFSET_BITS)
    loudness_db = level_db(centred)
    after = Level(
        offset=offset,
        speech_db=max(loudness_db, level.speech_db - DECAY_DB),
        noise_db=loudness_db if level.offset is None else min(loudness_db, level.noise_db + RISE_DB),
    )
    return _amplify(centred, gain_db(after)), after


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
