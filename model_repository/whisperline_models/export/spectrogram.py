"""Whisper's log-mel spectrogram as an ONNX graph: a product with the Fourier basis, another with the filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisperline_models.engine.audio import HOP_LENGTH, HOPS_AFTER, N_FFT, SAMPLE_RATE
from whisperline_models.export.onnx_builder import FLOAT, INT64, GraphBuilder

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_FLOOR = -10.0  # log10 of the smallest mel energy
_DYNAMIC_RANGE = 8.0  # decades below the loudest that are kept


def build_spectrogram(n_mels: int) -> onnx.ModelProto:
    """The spectrogram of `engine.audio`, always in float32.

    In: `hops` (B, F + HOPS_AFTER, HOP) float32 and `padding` (1) int64, both from `engine.audio.cut_hops`. Out: `mel`
    (B, n_mels, F + padding). The source is `log_mel_spectrogram` of openai-whisper's `audio.py`.
    """
    graph = GraphBuilder("spectrogram")
    hops, padding = graph.input("hops", FLOAT, ["B", "n_hops", HOP_LENGTH]), graph.input("padding", INT64, [1])
    spectrum = graph.op("MatMul", _frames(graph, hops), graph.weight("fourier", _windowed_fourier()))
    squares = graph.op("Mul", spectrum, spectrum)
    energy = graph.op("MatMul", squares, graph.weight("filters", np.repeat(mel_filters(n_mels), 2, axis=0)))
    bounded = graph.op("Max", energy, graph.scalar(10.0**_FLOOR))
    decades = graph.op("Mul", graph.op("Log", bounded), graph.scalar(float(1 / np.log(10))))
    heard = graph.op("Transpose", decades, perm=[0, 2, 1])
    pads = graph.op("Concat", graph.integers(0, 0, 0, 0, 0), padding, axis=0)
    spectrogram = graph.op("Pad", heard, pads, graph.scalar(_FLOOR))
    loudest = graph.op("ReduceMax", spectrogram, axes=[1, 2], keepdims=1)
    kept = graph.op("Max", spectrogram, graph.op("Sub", loudest, graph.scalar(_DYNAMIC_RANGE)))
    shifted = graph.op("Add", kept, graph.scalar(4.0))
    graph.op("Mul", shifted, graph.scalar(0.25), outputs=[graph.output("mel", FLOAT, ["B", n_mels, "T"])])
    return graph.model()


def _frames(graph: GraphBuilder, hops: str) -> str:
    """Overlapping frames (B, F, N_FFT): each is two hops and half of the next."""
    axes = graph.integers(1, 2)
    ends = [(-2, HOP_LENGTH), (-1, HOP_LENGTH), (np.iinfo(np.int64).max, N_FFT - HOPS_AFTER * HOP_LENGTH)]
    parts = [
        graph.op("Slice", hops, graph.integers(start, 0), graph.integers(*end), axes) for start, end in enumerate(ends)
    ]
    return graph.op("Concat", *parts, axis=2)


def _windowed_fourier() -> NDArray[np.float32]:
    """Real and imaginary parts in turn (N_FFT, 2 * (N_FFT // 2 + 1)), the Hann window inside."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    basis = np.fft.rfft(np.eye(N_FFT) * hann[:, None], axis=1)
    return np.stack([basis.real, basis.imag], axis=2).reshape(N_FFT, -1).astype(np.float32)


def mel_filters(n_mels: int) -> NDArray[np.float32]:
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
