"""What the log-mel graph is given: audio cut into hops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16000
N_FFT = 400  # samples in a frame of 25 ms
HOP = 160  # samples from one frame to the next: 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
HOPS_AFTER = 2  # hops beyond the one that a frame begins with, of which it hears a part
_REFLECTED = N_FFT // 2  # samples that are mirrored at either end of a window, so that frames are centred


def cut_hops(audio: NDArray[np.float32], window_s: float) -> tuple[NDArray[np.float32], int]:
    """The hops (F + HOPS_AFTER, HOP) of the F frames that hear any of the audio, mono 16 kHz in -1..1.

    Also the number of frames that hear only the silence with which the audio is padded to the window.
    """
    n_frames = round(window_s * FRAMES_PER_SECOND)
    samples = audio[: n_frames * HOP]
    heard = min(n_frames, (samples.size + _REFLECTED) // HOP + 1)
    hops = np.zeros((heard + HOPS_AFTER) * HOP, np.float32)
    centred = hops[_REFLECTED:]
    centred[: samples.size] = samples[: centred.size]
    hops[:_REFLECTED] = centred[_REFLECTED:0:-1]
    end = _REFLECTED + n_frames * HOP
    if hops.size > end:  # the window is full: its end is mirrored, too
        mirrored = hops[end - 1 - (hops.size - end) : end - 1]
        hops[end:] = mirrored[::-1]
    return hops.reshape(-1, HOP), n_frames - heard
