"""A small builder of ONNX graphs, with named weights and with matrix products in several precisions."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Attribute = int | float | str | Sequence[int]
    Shape = Sequence[int | str]

OPSET = 17
IR_VERSION = 10
MICROSOFT = "com.microsoft"
FLOAT, FLOAT16, INT32, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64
BOOL = TensorProto.BOOL
INT64_MAX = np.iinfo(np.int64).max  # as the end of a slice: the last element
_MAX_CODE = 63  # the largest int8 code of a weight: see `quantize_columns`


class Arithmetic(Enum):
    """The arithmetic of matrix products. Weights in int8 have one scale per output channel."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # for GPUs
    INT8 = "int8"  # one scale for all activations of a product
    INT8_ROWS = "int8_rows"  # one scale per row of activations, so that no row depends on the others


class GraphBuilder:
    """Collects inputs, outputs, weights and nodes. Every method that adds a node returns the name of its output.

    Nodes without a name are numbered in the order of the calls, so the same calls give the same bytes.
    """

    def __init__(self, name: str, arithmetic: Arithmetic = Arithmetic.FLOAT32) -> None:
        self.name = name
        self.arithmetic = arithmetic
        self.float = TensorProto.FLOAT16 if arithmetic is Arithmetic.FLOAT16 else TensorProto.FLOAT
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def input(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare an input. Axes with a name are dynamic."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare an output, for a node to name."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def weight(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant with its own type. A second call with the same name adds nothing."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def parameter(self, name: str, value: NDArray[np.float32]) -> str:
        """Add a weight of the network, in the graph's floating point type `float`."""
        return self.weight(name, value.astype(helper.tensor_dtype_to_np_dtype(self.float)))

    def cast(self, x: str, dtype: int) -> str:
        """Convert `x` to another type."""
        return self.op("Cast", x, to=dtype)

    def integers(self, *values: int) -> str:
        """Add a constant vector of indices or of a shape."""
        return self.weight("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float | np.generic) -> str:
        """Add a constant scalar. A plain number becomes float32."""
        array = np.asarray(value, None if isinstance(value, np.generic) else np.float32)
        return self.weight(f"{array.dtype}_{value}", array)

    def op(
        self,
        kind: str,
        *inputs: str,
        outputs: Sequence[str] = (),
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """Add a node with this operator."""
        outputs = outputs or [f"{kind}_{len(self.nodes)}"]
        node = helper.make_node(kind, inputs, outputs, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs[0]

    def fused(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Attribute) -> str:
        """Add a node with an operator of ONNX Runtime's own domain."""
        return self.op(kind, *inputs, outputs=outputs, domain=MICROSOFT, **attributes)

    def linear(
        self,
        x: str,
        name: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        output: str | None = None,
    ) -> str:
        """Add `x @ weight.T + bias`, with `weight` of shape (outputs, inputs) as torch stores it."""
        if self.arithmetic not in {Arithmetic.INT8, Arithmetic.INT8_ROWS}:
            y = self.op("MatMul", x, self.parameter(f"{name}.weight", weight.T), outputs=[output] if output else ())
            return y if bias is None else self.op("Add", y, self.parameter(f"{name}.bias", bias))
        codes, scales = quantize_columns(weight.T)
        inputs = [self.weight(f"{name}.codes", codes), self.weight(f"{name}.scales", scales)]
        biases = [] if bias is None else [self.weight(f"{name}.bias", bias)]
        if self.arithmetic is Arithmetic.INT8:
            return self.fused("DynamicQuantizeMatMul", x, *inputs, "", *biases)
        # ONNX Runtime has no operator with a scale per row. So divide each row by its largest magnitude, quantise it
        # with a fixed step, and multiply the product by that magnitude.
        zero, step = self.weight("uint8_128", np.array(128, np.uint8)), self.scalar(1 / 127)
        largest = self.op("ReduceMax", self.op("Abs", x), axes=[-1], keepdims=1)
        quantized = self.op("QuantizeLinear", self.op("Div", x, largest), step, zero)
        product = self.fused("MatMulIntegerToFloat", quantized, inputs[0], step, inputs[1], zero)
        scaled = self.op("Mul", product, largest, outputs=[output] if output and bias is None else ())
        return scaled if bias is None else self.op("Add", scaled, *biases)

    def layer_norm(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32], *, output: str | None = None
    ) -> str:
        """Add a layer normalisation over the last axis, with the default epsilon of torch."""
        inputs = [x, self.parameter(f"{name}.weight", weight), self.parameter(f"{name}.bias", bias)]
        outputs = [output] if output else []
        return self.op("LayerNormalization", *inputs, outputs=outputs, axis=-1, epsilon=1e-5)

    def model(self) -> onnx.ModelProto:
        """Return the graph as a model that ONNX Runtime can load. This moves the weights out of the builder."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, [])
        while self.weights:  # appending copies, so move one at a time, or a large model would be in memory twice
            graph.initializer.append(self.weights.pop(next(iter(self.weights))))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="whisperline")


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise weights (inputs, outputs) symmetrically. Returns the codes and the scales (outputs).

    The codes have only 7 bits: without VNNI, x86 adds pairs of products in 16 bits, which 8-bit codes would overflow.
    """
    scales = (np.maximum(np.abs(weight).max(axis=0), 1e-8) / _MAX_CODE).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales
