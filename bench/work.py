"""Count the work in a version's graphs, from their nodes and weights: multiply-add pairs by precision, and bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from whisperline_models.engine.graphs import ModelSpec
from whisperline_models.engine.slots import MAX_FRAMES, SILENCE_FRAMES

FRAMES_PER_S = 50  # encoder frames
ATTENTION = {"MultiHeadAttention", "Attention"}
CACHED_ATTENTION = "GroupQueryAttention"
PRODUCTS = ("MatMul", "Gemm", "Conv")
FIRST_CONVOLUTION = "encoder.conv1"  # the only product over frames of 10 ms
INT8 = {np.dtype(np.int8), np.dtype(np.uint8)}


@dataclass(frozen=True)
class Linear:
    """A matrix product with weights: multiply-add pairs per input row, bytes as stored, and precision."""

    kind: str
    pairs: int
    n_bytes: int
    is_int8: bool
    rows_per_frame: int  # 2 before the second convolution, where a row is a frame of 10 ms; else 1


@dataclass(frozen=True)
class Work:
    """The work of a version. Bytes count everything that a step reads, although CPU caches may save some of it."""

    spec: ModelSpec
    spectrogram: tuple[Linear, ...]  # its rows are frames of 10 ms
    encoder: tuple[Linear, ...]
    n_attentions: int  # attention layers of the encoder, which run over all frames in float32
    decoder: tuple[Linear, ...]
    cache_bytes: int  # of one element in the decoder's caches

    @classmethod
    def of(cls, version: Path) -> "Work":
        """Read a version's folder."""
        spec = ModelSpec.read(version)
        spectrogram, decoder = (onnx.load(version / f"{name}.onnx") for name in ("spectrogram", "decoder"))
        encoder = [onnx.load(version / f"encoder_{piece}.onnx") for piece in range(spec.encoder_pieces)]
        attentions = sum(node.op_type in ATTENTION for piece in encoder for node in piece.graph.node)
        (cache,) = (value for value in decoder.graph.input if value.name == "cross_key_0")
        width = numpy_helper.to_array(onnx.TensorProto(dims=[0], data_type=cache.type.tensor_type.elem_type)).itemsize
        spectra, decoders = (tuple(_linears(model.graph)) for model in (spectrogram, decoder))
        encoders = tuple(part for piece in encoder for part in _linears(piece.graph))
        return cls(spec, spectra, encoders, attentions, decoders, width)

    def spectrogram_pairs(self, audio_s: float) -> float:
        """Return the pairs for the spectrogram of this much audio, in float32. The silence after it costs nothing."""
        return sum(part.pairs for part in self.spectrogram) * 2 * FRAMES_PER_S * audio_s

    def encoder_pairs(self, window_s: float, *, int8: bool) -> float:
        """Return the pairs for encoding one window, in one precision."""
        n_frames, state = round(window_s * FRAMES_PER_S), self.spec.n_text_state
        linear = sum(part.pairs * part.rows_per_frame * n_frames for part in self.encoder if part.is_int8 == int8)
        return linear + (0 if int8 else self.n_attentions * 2 * n_frames * n_frames * state)

    def step_pairs(self, *, int8: bool) -> int:
        """Return the pairs for one row in one decoder step, without attention, which the memory bandwidth limits."""
        return sum(part.pairs for part in self.decoder if part.is_int8 == int8)

    @property
    def step_bytes(self) -> int:
        """The bytes of weights that a step reads, however many rows it has."""
        return sum(part.n_bytes for part in self.decoder)

    def row_bytes(self, window_s: float, n_tokens: float) -> float:
        """Return the bytes of keys and values that one row of a step reads: of its window, and of its own tokens."""
        n_kept = min(window_s * FRAMES_PER_S + SILENCE_FRAMES, MAX_FRAMES) + n_tokens
        return 2 * self.spec.n_text_layer * self.spec.n_text_state * self.cache_bytes * n_kept


def _linears(graph: onnx.GraphProto) -> Iterator[Linear]:
    """Yield every convolution and matrix product with weights, quantised or not."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # a weight may pass through nodes that convert its type
        if node.op_type in {"DequantizeLinear", "Cast", "Transpose"} and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    for node in graph.node:
        stored = [weights[name] for name in node.input if name in weights and len(weights[name].dims) > 1]
        if stored and any(kind in node.op_type for kind in PRODUCTS):
            codes = max(stored, key=lambda tensor: np.prod(tensor.dims))
            is_int8 = numpy_helper.to_array(codes).dtype in INT8
            n_bytes = sum(numpy_helper.to_array(tensor).nbytes for tensor in stored)
            rows_per_frame = 2 if any(name.startswith(FIRST_CONVOLUTION) for name in node.input) else 1
            yield Linear(node.op_type, int(np.prod(codes.dims)), n_bytes, is_int8, rows_per_frame)
