"""Resampled audio depends on positions alone, and is of good quality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_transcriber.stream.audio import AudioBuffer, Samples, to_mono

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 12_345]


def _noise(size: int) -> Samples:
    return np.random.default_rng(size).integers(-20_000, 20_000, size, dtype=np.int16)


def _in_pieces(samples: Samples, rate: int, sizes: list[int], start: int = 0) -> AudioBuffer:
    buffer, at, turn = AudioBuffer(rate, start), start, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        buffer.append(samples[at : at + size])
        at, turn = at + size, turn + 1
    buffer.flush()
    return buffer


@given(st.sampled_from(RATES), st.lists(st.integers(1, 5_000), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_chunk_sizes_do_not_change_a_sample(rate: int, sizes: list[int]) -> None:
    """The same audio in chunks of other sizes gives the same 16 kHz samples, bit for bit."""
    samples = _noise(20_000)
    whole, pieces = _in_pieces(samples, rate, [20_000]), _in_pieces(samples, rate, sizes)
    assert whole.end == pieces.end == -(-20_000 * 16_000 // rate)
    assert np.array_equal(whole.read(0, whole.end), pieces.read(0, pieces.end))


@given(st.sampled_from(RATES), st.integers(1, 15_000))
@settings(max_examples=60, deadline=None)
def test_a_replay_from_the_middle_gives_the_same_samples(rate: int, start: int) -> None:
    """A replay gives the same samples wherever it begins."""
    samples = _noise(20_000)
    whole, late = _in_pieces(samples, rate, [20_000]), _in_pieces(samples, rate, [777], start)
    assert np.array_equal(whole.read(late.start, whole.end), late.read(late.start, late.end))
    assert late.start <= -(-(start + 100) * 16_000 // rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_frequency_and_level(rate: int) -> None:
    """A 1 kHz tone comes out as the same tone, to 60 dB."""
    tone = (10_000 * np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)).astype(np.int16)
    buffer = _in_pieces(tone, rate, [999])
    middle = slice(2_000, 14_000)
    expected = 10_000 * np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)
    error = buffer.read(0, 16_000)[middle] - expected[middle]
    assert np.sqrt(np.mean(error**2)) < 10_000 / 1_000


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_what_16_khz_cannot_hold_is_filtered_out(rate: int) -> None:
    """A 12 kHz tone is gone, instead of coming back as 4 kHz."""
    tone = (10_000 * np.sin(2 * np.pi * 12_000 * np.arange(rate) / rate)).astype(np.int16)
    heard = _in_pieces(tone, rate, [4_096]).read(2_000, 14_000)
    assert np.abs(heard.astype(np.int32)).max() < 10


def test_dropping_keeps_what_follows() -> None:
    """Dropped samples can no longer be read, and the remaining ones are unchanged."""
    samples = _noise(60_000)
    buffer = AudioBuffer(16_000, 0)
    for at in range(0, 60_000, 1_000):
        buffer.append(samples[at : at + 1_000])
        buffer.drop(at - 5_000)
        first = max(0, at - 5_000)
        assert np.array_equal(buffer.read(first, at + 1_000), samples[first : at + 1_000])
    with pytest.raises(IndexError, match="not held"):
        buffer.read(0, 10)


def test_channels_are_mixed_down() -> None:
    """Two channels become their mean."""
    stereo = np.array([[100, 300], [-50, 50]], "<i2").tobytes()
    assert to_mono(stereo, 2).tolist() == [200, 0]
