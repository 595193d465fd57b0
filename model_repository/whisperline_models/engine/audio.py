"""Cut audio into the input of the spectrogram graph. The constants are those of openai-whisper's `audio.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16000
N_FFT = 400  # samples in one frame of the Fourier transform: 25 ms
HOP_LENGTH = 160  # samples from one frame to the next: 10 ms
CHUNK_LENGTH_S = 30  # the window that Whisper was trained with, and the longest it can take
N_SAMPLES = CHUNK_LENGTH_S * SAMPLE_RATE  # 480000 samples in 30 s
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100 spectrogram frames
N_SAMPLES_PER_TOKEN = 2 * HOP_LENGTH  # 20 ms: one encoder frame (its second convolution has stride 2), one timestamp
HOPS_AFTER = 2  # a frame of 400 samples spans its own hop of 160, the next one, and half of the one after that
_REFLECTED = N_FFT // 2  # samples mirrored at each end of a window, so that frames are centred


def cut_hops(audio: NDArray[np.float32], window_s: float) -> tuple[NDArray[np.float32], int]:
    """Cut audio (mono 16 kHz, -1..1) into the hops that the spectrogram graph takes.

    Returns the hops (F + HOPS_AFTER, HOP_LENGTH) of the F frames that overlap the audio, and the number of frames after
    those, which cover only the silence that pads the audio to `window_s`. The graph fills in those frames without
    computing them, so padding costs nothing.
    """
    n_frames = round(window_s * FRAMES_PER_SECOND)
    samples = audio[: n_frames * HOP_LENGTH]
    # The reference pads the window by half a frame on both sides: frame i is centred on sample i * HOP_LENGTH.
    n_audible = min(n_frames, (samples.size + _REFLECTED) // HOP_LENGTH + 1)
    hops = np.zeros((n_audible + HOPS_AFTER) * HOP_LENGTH, np.float32)
    window = hops[_REFLECTED:]
    window[: samples.size] = samples[: window.size]
    hops[:_REFLECTED] = window[_REFLECTED:0:-1]
    end = _REFLECTED + n_frames * HOP_LENGTH
    if hops.size > end:  # the audio fills the window, so the last frames also cover the mirrored samples after its end
        mirrored = hops[end - 1 - (hops.size - end) : end - 1]
        hops[end:] = mirrored[::-1]
    return hops.reshape(-1, HOP_LENGTH), n_frames - n_audible
