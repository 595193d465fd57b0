"""The log-mel spectrogram of Whisper's `audio.py`, in NumPy."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16000
N_FFT = 400  # samples in a frame of 25 ms
HOP = 160  # samples from one frame to the next: 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
_FLOOR = -10.0  # log10 of the smallest mel energy
_DYNAMIC_RANGE = 8.0  # decades below the loudest that are kept


def log_mel(audio: NDArray[np.float32], window_s: int, n_mels: int) -> NDArray[np.float32]:
    """The spectrogram (n_mels, 100 * window_s) of mono 16 kHz audio in -1..1, padded with silence to the window.

    Frames that hear only the padding are not transformed: they are the floor.
    """
    n_frames = window_s * FRAMES_PER_SECOND
    padded = np.zeros(window_s * SAMPLE_RATE, np.float32)
    padded[: audio.size] = audio[: padded.size]
    heard = min(n_frames, (min(audio.size, padded.size) + N_FFT // 2) // HOP + 1)
    energy = _power(np.pad(padded, N_FFT // 2, mode="reflect"), heard) @ _mel_filters(n_mels)
    spectrum = np.full((n_mels, n_frames), _FLOOR, np.float32)
    spectrum[:, :heard] = np.log10(np.maximum(energy, 10**_FLOOR)).T
    bounded: NDArray[np.float32] = (np.maximum(spectrum, spectrum.max() - _DYNAMIC_RANGE) + 4.0) / 4.0
    return bounded


def _power(padded: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """The power spectrum (frames, N_FFT // 2 + 1) of Hann-windowed frames."""
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:n_frames]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power: NDArray[np.float32] = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    window: NDArray[np.float32] = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    return window


@lru_cache(maxsize=4)
def _mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Triangles (N_FFT // 2 + 1, n_mels) on Slaney's mel scale, of equal area, as `librosa.filters.mel` makes them."""
    corners = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(SAMPLE_RATE / 2)), n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: NDArray[np.float32] = (triangles * (2.0 / (right - left))).astype(np.float32)
    return filters


_LINEAR_HZ = 200.0 / 3  # width of a mel below the corner
_CORNER_HZ = 1000.0
_CORNER_MEL = _CORNER_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    return float(_CORNER_MEL + np.log(hz / _CORNER_HZ) / _LOG_STEP)  # only asked for above the corner


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < _CORNER_MEL, mel * _LINEAR_HZ, _CORNER_HZ * np.exp(_LOG_STEP * (mel - _CORNER_MEL)))
