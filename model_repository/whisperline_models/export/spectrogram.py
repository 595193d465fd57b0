"""Whisper's log-mel spectrogram as an ONNX graph: a product with the Fourier basis, then one with the mel filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisperline_models.engine.audio import HOP_LENGTH, HOPS_AFTER, N_FFT, SAMPLE_RATE
from whisperline_models.export.onnx_builder import FLOAT, INT64, INT64_MAX, GraphBuilder

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_FLOOR = -10.0  # log10 of the smallest mel energy
_DYNAMIC_RANGE = 8.0  # decades below the maximum that are kept


def build_spectrogram(n_mels: int) -> onnx.ModelProto:
    """Return the graph of the spectrogram of F frames, always in float32.

    Inputs: `hops` (B, F + HOPS_AFTER, HOP_LENGTH) float32 and `padding` (1) int64, as `engine.audio.cut_hops` returns
    them. Output: `mel` (B, n_mels, F + padding). Source: `log_mel_spectrogram` of openai-whisper's `audio.py`.
    """
    graph = GraphBuilder("spectrogram")
    hops, padding = graph.input("hops", FLOAT, ["B", "n_hops", HOP_LENGTH]), graph.input("padding", INT64, [1])

    # Frames overlap: each frame of (B, F, N_FFT) is two hops and half of the next one.
    axes = graph.integers(1, 2)
    ends = [(-2, HOP_LENGTH), (-1, HOP_LENGTH), (INT64_MAX, N_FFT - HOPS_AFTER * HOP_LENGTH)]
    parts = [
        graph.op("Slice", hops, graph.integers(start, 0), graph.integers(*end), axes) for start, end in enumerate(ends)
    ]
    frames = graph.op("Concat", *parts, axis=2)

    # Real and imaginary parts alternate in the basis (N_FFT, 2 * (N_FFT // 2 + 1)), which includes the Hann window.
    # Their squares add up to the energy, so the filter of each frequency is repeated.
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    basis = np.fft.rfft(np.eye(N_FFT) * hann[:, None], axis=1)
    fourier = np.stack([basis.real, basis.imag], axis=2).reshape(N_FFT, -1).astype(np.float32)
    spectrum = graph.op("MatMul", frames, graph.weight("fourier", fourier))
    squares = graph.op("Mul", spectrum, spectrum)
    energy = graph.op("MatMul", squares, graph.weight("filters", np.repeat(mel_filters(n_mels), 2, axis=0)))

    # ONNX has only the natural logarithm
    bounded = graph.op("Max", energy, graph.scalar(10.0**_FLOOR))
    decades = graph.op("Mul", graph.op("Log", bounded), graph.scalar(float(1 / np.log(10))))
    heard = graph.op("Transpose", decades, perm=[0, 2, 1])
    # frames that cover only padding are not computed: they are the floor
    pads = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), padding, axis=0)
    spectrogram = graph.op("Pad", heard, pads, graph.scalar(_FLOOR))
    # limit the range below the maximum of the whole window, then scale to about -1..1
    loudest = graph.op("ReduceMax", spectrogram, axes=[1, 2], keepdims=1)
    kept = graph.op("Max", spectrogram, graph.op("Sub", loudest, graph.scalar(_DYNAMIC_RANGE)))
    shifted = graph.op("Add", kept, graph.scalar(4.0))
    graph.op("Mul", shifted, graph.scalar(0.25), outputs=[graph.output("mel", FLOAT, ["B", n_mels, "T"])])
    return graph.model()


def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Return triangles of equal area (N_FFT // 2 + 1, n_mels) on Slaney's mel scale, as `librosa.filters.mel` does.

    The scale is linear up to 1 kHz (15 mels) and logarithmic above.
    """
    corner_hz, hz_per_mel, log_step = 1000.0, 200.0 / 3, np.log(6.4) / 27.0
    corner_mel = corner_hz / hz_per_mel
    highest_mel = float(corner_mel + np.log(SAMPLE_RATE / 2 / corner_hz) / log_step)
    mels = np.linspace(0.0, highest_mel, n_mels + 2)
    corners = np.where(mels < corner_mel, mels * hz_per_mel, corner_hz * np.exp(log_step * (mels - corner_mel)))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: NDArray[np.float32] = (triangles * (2.0 / (right - left))).astype(np.float32)
    return filters
