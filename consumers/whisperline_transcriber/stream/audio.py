"""Convert a session's bytes to 16 kHz mono samples that do not depend on the sizes of the chunks.

Each output sample is a function only of its own position and of the source samples around it,
not of where a chunk ended or a replay began. A streaming resampler with internal state would break that.
"""

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.int16]

SAMPLE_RATE = 16_000  # Hz; the rate that Whisper and Silero expect
SAMPLES_PER_MS = SAMPLE_RATE // 1000
ZERO_CROSSINGS = 24  # of the sinc, on either side
KAISER_BETA = 9.0  # about 90 dB of stop band
LEAST_BLOCK, MOST_BLOCK = 32, 640  # output samples that one matrix product computes together
PASS_BAND = 0.94  # of the lower Nyquist frequency


def milliseconds(sample: int) -> int:
    """Return the time of a sample at 16 kHz, in milliseconds."""
    return sample // SAMPLES_PER_MS


def to_mono(data: bytes, channels: int) -> Samples:
    """Return the mean of the channels of interleaved little-endian linear16 `data`."""
    samples = np.frombuffer(data, dtype="<i2")
    if channels == 1:
        return samples.astype(np.int16, copy=False)
    mean: Samples = samples.reshape(-1, channels).mean(axis=1).round().astype(np.int16)
    return mean


class Resampler:
    """Windowed-sinc conversion from `sample_rate` to 16 kHz (J. O. Smith, Digital Audio Resampling, 2002)."""

    def __init__(self, sample_rate: int) -> None:
        common = gcd(sample_rate, SAMPLE_RATE)
        self._up = SAMPLE_RATE // common
        self._down = sample_rate // common
        self.identity = self._up == self._down
        # Source samples on either side of an output sample. A higher source rate needs a sinc that spans more of them.
        width = ZERO_CROSSINGS * max(1.0, sample_rate / SAMPLE_RATE)
        self.half = 0 if self.identity else int(np.ceil(width))

    def source(self, position: int) -> int:
        """Return the source position at or before the output sample `position`."""
        return position * self._down // self._up

    def available(self, source_end: int) -> int:
        """Return the number of output samples, from 0, that the source samples before `source_end` determine."""
        return max(0, ((source_end - self.half) * self._up + self._down - 1) // self._down)

    def first(self, source_start: int) -> int:
        """Return the first output sample that source samples from `source_start` on determine."""
        return 0 if source_start <= 0 else -(-(source_start + self.half) * self._up // self._down)

    def convert(self, source: Samples, source_start: int, start: int, end: int) -> Samples:
        """Return output samples [start, end) from `source`, which begins at `source_start` and reaches far enough.

        The source counts as silent before its first sample.
        """
        if self.identity:
            return source[start - source_start : end - source_start]
        # Whole blocks are computed, which need more source than is held. Silence takes its place: the outputs that it
        # reaches are not wanted.
        block = self._up * -(-LEAST_BLOCK // self._up)
        step = block * self._down // self._up
        first, last = start // block, -(-end // block)
        begin = first * step - self.half + 1
        held = np.zeros((last - first) * step + 2 * self.half - 1)
        lower, upper = max(begin, source_start), min(begin + len(held), source_start + len(source))
        held[lower - begin : upper - begin] = source[lower - source_start : upper - source_start]
        at = slice(start - first * block, end - first * block)
        if block <= MOST_BLOCK:
            taps = _block_taps(self._up, self._down, self.half, block)
            mixed = (np.ascontiguousarray(sliding_window_view(held, len(taps))[::step]) @ taps).ravel()[at]
        else:  # a ratio of large numbers: few outputs share a phase
            positions = np.arange(at.start, at.stop) * self._down
            windows = sliding_window_view(held, 2 * self.half)[positions // self._up]
            kernels = _kernels(self._up, self._down, self.half)[positions % self._up]
            mixed = np.einsum("ij,ij->i", windows, kernels)
        converted: Samples = mixed.round().clip(-32768, 32767).astype(np.int16)
        return converted


@lru_cache(maxsize=8)
def _kernels(up: int, down: int, half: int) -> NDArray[np.float64]:
    """Return the filter of each phase, (up, 2 * half): its taps lie at source offsets 1 - half ... half.

    The taps are multiples of 2^-30. So the products with 16-bit samples and their sums are exact in float64, and an
    output does not depend on the order in which they are added, which varies with the number of outputs.
    """
    cutoff = PASS_BAND * min(1.0, up / down)
    offsets = np.arange(1 - half, half + 1) - np.arange(up)[:, None] / up
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, None))) / np.i0(KAISER_BETA)
    kernels = cutoff * np.sinc(cutoff * offsets) * window
    exact: NDArray[np.float64] = (kernels / kernels.sum(axis=1, keepdims=True) * 2**30).round() / 2**30
    return exact


@lru_cache(maxsize=8)
def _block_taps(up: int, down: int, half: int, block: int) -> NDArray[np.float64]:
    """Return the matrix that turns the source of a block into its outputs, (source samples, outputs)."""
    outputs = np.arange(block)
    taps = np.zeros((block * down // up + 2 * half - 1, block))
    taps[(outputs * down // up)[:, None] + np.arange(2 * half), outputs[:, None]] = _kernels(up, down, half)[
        outputs * down % up
    ]
    return taps


class AudioBuffer:
    """The samples [start, end) of a session at 16 kHz; the oldest can be dropped.

    Source samples are appended contiguously, beginning with the one at position `source_start`.
    """

    def __init__(self, sample_rate: int, source_start: int) -> None:
        self._sample_rate = sample_rate
        self._resampler = Resampler(sample_rate)
        self._source = np.empty(0, np.int16)
        self._source_start = source_start
        self._store = np.empty(SAMPLE_RATE, np.int16)  # begins with the samples [start, end); the rest is spare
        self.source_end = source_start
        self.start = self._resampler.first(source_start)
        self.end = self.start

    def append(self, samples: Samples) -> None:
        """Append the next source samples."""
        self._source = np.concatenate([self._source, samples])
        self.source_end += len(samples)
        self._extend(self._resampler.available(self.source_end))

    def flush(self) -> None:
        """Make the last samples readable, as if silence followed. Nothing can be appended afterwards."""
        total = -(-self.source_end * SAMPLE_RATE // self._sample_rate)
        self._source = np.pad(self._source, (0, 2 * self._resampler.half))
        self._extend(total)

    def read(self, start: int, end: int) -> Samples:
        """Return a view of the samples [start, end), valid until the next call. Raises `IndexError`."""
        if not self.start <= start <= end <= self.end:
            raise IndexError(f"samples {start} to {end} are not held: {self.start} to {self.end} are")
        return self._store[start - self.start : end - self.start]

    def drop(self, before: int) -> None:
        """Drop the samples before `before`."""
        keep = min(max(before, self.start), self.end)
        kept = self._store[keep - self.start : self.end - self.start].copy()
        self._store = np.empty(max(SAMPLE_RATE, 2 * len(kept)), np.int16)
        self._store[: len(kept)] = kept
        self.start = keep

    def _extend(self, end: int) -> None:
        if end <= self.end:
            return
        if end - self.start > len(self._store):
            grown = np.empty(2 * (end - self.start), np.int16)
            grown[: self.end - self.start] = self._store[: self.end - self.start]
            self._store = grown
        converted = self._resampler.convert(self._source, self._source_start, self.end, end)
        self._store[self.end - self.start : end - self.start] = converted
        self.end = end
        # Drop source samples that no further output needs. While a window still reaches back beyond the first
        # sample of the session, the source stays whole: `convert` pads it with silence.
        needed = self._resampler.source(self.end) - self._resampler.half
        if needed > (2 * self._resampler.half if self._source_start == 0 else self._source_start):
            self._source = self._source[needed - self._source_start :]
            self._source_start = needed
