"""Measure the limits of this machine, the memory bandwidth and matrix products, each as the best of several tries."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from report import THREADS

BUFFER_BYTES = 256 << 20  # far more than the processor's caches hold
TRIES = 8
SHAPES = ((1500, 384, 1536), (1500, 1536, 384), (1500, 384, 384))  # rows, inputs, outputs of tiny's encoder over 30 s
BLOCK = 32  # the block size of MatMulNBits


@dataclass(frozen=True)
class Ceilings:
    """The limits: bytes per second, read and written, and multiply-add pairs per second by kind of matrix product."""

    bandwidth: float
    float32: float
    int8: float
    int8_kind: str

    @classmethod
    def measure(cls) -> "Ceilings":
        """Measure them, which keeps every core busy for about ten seconds."""
        int8 = {kind: _products(build) for kind, build in _INT8.items()}
        best = max(int8, key=lambda kind: int8[kind])
        return cls(max(_copying(), _reading()), _products(_float32), int8[best], best)


def _copying() -> float:
    """Return the bandwidth of copying a buffer: a copied byte is one read and one written."""
    shape = (THREADS, BUFFER_BYTES // THREADS)
    source, target = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    return 2 * source.nbytes / _best_s(lambda part: np.copyto(target[part], source[part]))


def _reading() -> float:
    """Return the bandwidth of a matrix times a vector, which reads each byte once, as a step of the decoder does."""
    matrix = np.ones((THREADS, BUFFER_BYTES // THREADS // 4096, 1024), np.float32)
    vector = np.ones(1024, np.float32)
    return matrix.nbytes / _best_s(lambda part: matrix[part] @ vector)


def _best_s(work: Callable[[int], object]) -> float:
    """Return the seconds of the fastest try, in which every thread does its part."""
    with ThreadPoolExecutor(THREADS) as pool:
        return min(_timed(lambda: list(pool.map(work, range(THREADS)))) for _ in range(TRIES))


def _products(build: Callable[[int, int], onnx.ModelProto]) -> float:
    """Return the multiply-add pairs per second of the fastest of the encoder's shapes, through ONNX Runtime."""
    return max(_rate(build(inputs, outputs), rows, inputs, outputs) for rows, inputs, outputs in SHAPES)


def _rate(model: onnx.ModelProto, rows: int, inputs: int, outputs: int) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    x = np.random.default_rng(0).integers(0, 100, (rows, inputs)).astype(dtype)
    return rows * inputs * outputs / min(_timed(lambda: session.run(None, {"x": x})) for _ in range(TRIES))


def _float32(inputs: int, outputs: int) -> onnx.ModelProto:
    return _model("MatMul", TensorProto.FLOAT, {"w": np.ones((inputs, outputs), np.float32)})


def _integer(inputs: int, outputs: int) -> onnx.ModelProto:
    return _model("MatMulInteger", TensorProto.UINT8, {"w": np.ones((inputs, outputs), np.int8)}, TensorProto.INT32)


def _n_bits(inputs: int, outputs: int) -> onnx.ModelProto:
    blocks = (outputs, inputs // BLOCK)
    weights: dict[str, NDArray[np.generic]] = {
        "codes": np.ones((*blocks, BLOCK), np.uint8),
        "scales": np.ones(blocks, np.float32),
    }
    attributes = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    return _model("MatMulNBits", TensorProto.FLOAT, weights, domain="com.microsoft", **attributes)


_INT8 = {"MatMulInteger": _integer, "MatMulNBits": _n_bits}


def _model(
    kind: str,
    dtype: int,
    weights: dict[str, NDArray[np.generic]],
    result: int = TensorProto.FLOAT,
    domain: str = "",
    **attributes: int,
) -> onnx.ModelProto:
    node = helper.make_node(kind, ["x", *weights], ["y"], domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info("x", dtype, ["rows", "inputs"])],
        [helper.make_tensor_value_info("y", result, ["rows", "outputs"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
