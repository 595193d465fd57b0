"""The spectrogram graph, compared with the reference's `log_mel_spectrogram`, written out in float64."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_models.engine.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, cut_hops
from whisperline_models.export.spectrogram import build_spectrogram, mel_filters

SESSIONS = {n: onnxruntime.InferenceSession(build_spectrogram(n).SerializeToString()) for n in (80, 128)}


def log_mel(audio: NDArray[np.float32], window_s: int, n_mels: int = 80) -> NDArray[np.float32]:
    """Return the graph's spectrogram of audio."""
    hops, padding = cut_hops(audio, window_s)
    mel: NDArray[np.float32] = SESSIONS[n_mels].run(["mel"], {"hops": hops[None], "padding": np.array([padding])})[0][0]
    return mel


def reference(audio: NDArray[np.float32], window_s: int) -> NDArray[np.float64]:
    """Return the spectrogram of the padded window, every frame by the fast Fourier transform."""
    padded = np.zeros(window_s * SAMPLE_RATE)
    padded[: audio.size] = audio[: padded.size]
    centred = np.pad(padded, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(centred, N_FFT)[::HOP_LENGTH][:-1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    energy = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2 @ mel_filters(80)
    decades = np.log10(np.maximum(energy, 1e-10)).T
    mel: NDArray[np.float64] = (np.maximum(decades, decades.max() - 8.0) + 4.0) / 4.0
    return mel


@settings(deadline=None, max_examples=30)
@given(n_samples=st.integers(1, 6 * SAMPLE_RATE), seed=st.integers(0, 2**32 - 1))
def test_the_graph_gives_the_references_spectrogram(n_samples: int, seed: int) -> None:
    """The graph agrees with the reference for audio shorter than, equal to and longer than the window."""
    audio = np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)
    np.testing.assert_allclose(log_mel(audio, 5), reference(audio, 5), atol=1e-4)


@pytest.mark.parametrize("n_samples", [5 * SAMPLE_RATE - N_FFT, 5 * SAMPLE_RATE - 1, 5 * SAMPLE_RATE])
def test_the_end_of_a_full_window_is_mirrored(n_samples: int) -> None:
    """The last frames of a full window cover its mirrored end, as in the reference."""
    audio = np.random.default_rng(1).normal(0, 0.1, n_samples).astype(np.float32)
    np.testing.assert_allclose(log_mel(audio, 5), reference(audio, 5), atol=1e-4)


@pytest.mark.parametrize("hz", [200, 1000, 4000])
def test_a_tone_is_loudest_where_its_mel_is(hz: int) -> None:
    """A tone gives the most energy to the filter at its place on Slaney's scale, of 80 filters."""
    audio = np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    loudest = int(log_mel(audio, 1)[:, 50].argmax())
    mels = hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)
    highest = 15 + 27 * np.log(8) / np.log(6.4)
    assert loudest == pytest.approx(mels / highest * 81 - 1, abs=1)


def test_shape_and_type() -> None:
    """A window has a hundred frames per second, whatever the length of the audio."""
    for n_samples in (1, N_FFT, 3 * SAMPLE_RATE):
        mel = log_mel(np.zeros(n_samples, np.float32), 2, 128)
        assert mel.shape == (128, 200)
        assert mel.dtype == np.float32
