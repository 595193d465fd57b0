import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_models.engine.log_mel import HOP, N_FFT, SAMPLE_RATE, log_mel


@settings(deadline=None, max_examples=30)
@given(n_samples=st.integers(1, 6 * SAMPLE_RATE), seed=st.integers(0, 2**32 - 1))
def test_frames_of_padding_are_what_transforming_them_gives(n_samples: int, seed: int) -> None:
    """Leaving out the frames that hear only silence changes nothing."""
    audio = np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)
    padded = np.zeros(5 * SAMPLE_RATE, np.float32)
    padded[: audio.size] = audio[: padded.size]
    np.testing.assert_allclose(log_mel(audio, 5, 80), log_mel(padded, 5, 80), atol=1e-5)


@pytest.mark.parametrize("hz", [200, 1000, 4000])
def test_a_tone_is_loudest_where_its_mel_is(hz: int) -> None:
    """The loudest of 80 filters is the one that Slaney's scale puts at the tone."""
    audio = np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    loudest = int(log_mel(audio, 1, 80)[:, 50].argmax())
    mels = hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)
    highest = 15 + 27 * np.log(8) / np.log(6.4)
    assert loudest == pytest.approx(mels / highest * 81 - 1, abs=1)


def test_the_range_is_bounded_by_the_loudest() -> None:
    """What is eight decades below the loudest frame is cut off there."""
    audio = np.zeros(2 * SAMPLE_RATE, np.float32)
    audio[:HOP] = np.random.default_rng(0).normal(0, 0.3, HOP)
    mel = log_mel(audio, 2, 80)
    assert mel.max() - mel.min() == pytest.approx(8 / 4)


def test_shape_and_type() -> None:
    """A window has a hundred frames a second whatever the audio's length."""
    for n_samples in (1, N_FFT, 3 * SAMPLE_RATE):
        mel = log_mel(np.zeros(n_samples, np.float32), 2, 128)
        assert (mel.shape, mel.dtype) == ((128, 200), np.float32)
