"""Quiet recordings and recordings with an offset are heard like others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_contracts import Level
from whisperline_transcriber.stream.audio import SAMPLE_RATE, Samples
from whisperline_transcriber.stream.level import (
    MAX_GAIN_DB,
    NOISE_TARGET_DB,
    TARGET_DB,
    follow,
    gain_db,
    level_db,
    normalize_window,
)
from whisperline_transcriber.stream.vad import FRAME_SAMPLES

RANDOM = np.random.default_rng(1)


def _noise(seconds: float, db: float) -> NDArray[np.float64]:
    """Return noise with this level in dB of full scale."""
    return RANDOM.normal(0, 32_768 * 10 ** (db / 20), int(seconds * SAMPLE_RATE))


def _pcm(samples: NDArray[np.float64]) -> Samples:
    return samples.round().clip(-32_768, 32_767).astype(np.int16)


def _call(by_db: float = 0.0, offset: float = 0.0) -> Samples:
    """Return two seconds of quiet noise, two of loud, and two of quiet again."""
    samples = np.concatenate([_noise(2, -70), _noise(2, -24), _noise(2, -70)])
    return _pcm(samples * 10 ** (by_db / 20) + offset * 32_768)


def _follow(samples: Samples, level: Level | None = None) -> tuple[list[Samples], Level]:
    level = level or Level()
    frames = []
    for at in range(0, len(samples) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        frame, level = follow(level, samples[at : at + FRAME_SAMPLES])
        frames.append(frame)
    return frames, level


def _db(frame: Samples) -> float:
    return level_db(frame.astype(np.int32))


def test_quiet_speech_is_raised_to_the_level_of_loud_speech() -> None:
    """Forty decibels less at the microphone are at most two less for voice activity, from the first frame on."""
    loud, quiet = _follow(_call())[0], _follow(_call(by_db=-40))[0]
    first = 2 * SAMPLE_RATE // FRAME_SAMPLES + 1
    for at in range(first, first + 30):
        assert abs(_db(loud[at]) - _db(quiet[at])) < 2


def test_speech_of_usual_level_stays_as_it_is() -> None:
    """Voice activity's own thresholds hold for it."""
    samples = _pcm(_noise(1, TARGET_DB))
    frames, level = _follow(samples)
    assert gain_db(level) <= 1
    assert abs(_db(frames[-1]) - TARGET_DB) < 2


def test_noise_alone_is_not_raised_to_the_level_of_speech() -> None:
    """Otherwise it would be taken for speech."""
    for db in (-90, -75, -60):
        frames, _ = _follow(_pcm(_noise(3, db)))
        assert max(map(_db, frames)) < NOISE_TARGET_DB + 3


def test_digital_silence_stays_silent() -> None:
    """No gain turns nothing into something."""
    frames, level = _follow(np.zeros(SAMPLE_RATE, np.int16))
    assert not any(frame.any() for frame in frames)
    assert gain_db(level) <= MAX_GAIN_DB


def test_an_offset_is_gone_from_the_first_frame_on() -> None:
    """Voice activity sees the speech alone."""
    plain, shifted = _follow(_call())[0], _follow(_call(offset=0.3))[0]
    for before, after in zip(plain, shifted, strict=True):
        assert abs(float(after.mean())) < max(40.0, 0.2 * float(np.abs(before).max()))


@given(st.integers(0, 100))
def test_the_level_goes_on_where_it_was(cut: int) -> None:
    """A replay that begins with the level of its start sees the same frames."""
    samples = _call(by_db=-30)[: 101 * FRAME_SAMPLES]
    whole, _ = _follow(samples)
    before, level = _follow(samples[: cut * FRAME_SAMPLES])
    after, _ = _follow(samples[cut * FRAME_SAMPLES :], level)
    assert all(np.array_equal(a, b) for a, b in zip(whole, before + after, strict=True))


def test_a_window_has_one_level_whatever_its_gain() -> None:
    """Whisper gets the same window of a quiet microphone, up to the rounding of its few bits."""
    window = _pcm(_noise(1, -30))
    quiet = _pcm(window * 10 ** (-40 / 20))
    difference = normalize_window(window).astype(float) - normalize_window(quiet)
    assert np.abs(difference).max() < 600
    assert abs(_db(normalize_window(quiet)) - _db(normalize_window(window))) < 0.5


def test_a_window_has_no_offset() -> None:
    """The mean is taken away before the level is measured."""
    window = _pcm(_noise(1, -30) + 0.3 * 32_768)
    assert abs(float(normalize_window(window).mean())) < 50


def test_a_loud_window_is_not_made_quieter() -> None:
    """Whisper needs no attenuation, and rounding would cost bits."""
    window = _pcm(_noise(1, -6))
    assert abs(_db(normalize_window(window)) - _db(window)) < 0.1


def test_a_silent_window_stays_silent() -> None:
    """An empty one, too."""
    assert not normalize_window(np.zeros(SAMPLE_RATE, np.int16)).any()
    assert not len(normalize_window(np.empty(0, np.int16)))
