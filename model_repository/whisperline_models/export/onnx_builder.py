"""A small builder of ONNX graphs: operators in order, weights by name, one matrix product in any precision."""

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
_MAX_CODE = 63


class Arithmetic(Enum):
    """How matrix products are computed."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # for GPUs
    INT8 = "int8"  # weights with a scale an output, activations with a scale for all of them
    INT8_ROWS = "int8_rows"  # activations with a scale a row, so that rows do not touch each other


class GraphBuilder:
    """Collects inputs, outputs, weights and nodes; every method that adds a node returns its output's name."""

    def __init__(self, name: str, arithmetic: Arithmetic = Arithmetic.FLOAT32) -> None:
        self.name = name
        self.arithmetic = arithmetic
        self.float = TensorProto.FLOAT16 if arithmetic is Arithmetic.FLOAT16 else TensorProto.FLOAT
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def input(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare an input; named axes are dynamic."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: int, shape: Shape) -> str:
        """Declare an output, for a node to name."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def weight(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant once, as it is; a second call with the same name returns the first."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def parameter(self, name: str, value: NDArray[np.float32]) -> str:
        """Add a weight of the network, in the graph's floating point type `float`."""
        return self.weight(name, value.astype(helper.tensor_dtype_to_np_dtype(self.float)))

    def cast(self, x: str, dtype: int) -> str:
        """Convert to another type."""
        return self.op("Cast", x, to=dtype)

    def integers(self, *values: int) -> str:
        """A constant vector, of indices or a shape."""
        return self.weight("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float | np.generic) -> str:
        """A constant scalar; a plain number is float32."""
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
        """Add a node."""
        outputs = outputs or [f"{kind}_{len(self.nodes)}"]
        node = helper.make_node(kind, inputs, outputs, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs[0]

    def fused(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Attribute) -> str:
        """An operator of ONNX Runtime's own domain."""
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
        """`x @ weight.T + bias`, with `weight` of shape (outputs, inputs) as torch stores it."""
        if self.arithmetic in {Arithmetic.INT8, Arithmetic.INT8_ROWS}:
            return self._linear_int8(x, name, weight, bias, output=output)
        y = self.op("MatMul", x, self.parameter(f"{name}.weight", weight.T), outputs=[output] if output else ())
        return y if bias is None else self.op("Add", y, self.parameter(f"{name}.bias", bias))

    def _linear_int8(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, *, output: str | None
    ) -> str:
        codes, scales = quantize_columns(weight.T)
        inputs = [self.weight(f"{name}.codes", codes), self.weight(f"{name}.scales", scales)]
        biases = [] if bias is None else [self.weight(f"{name}.bias", bias)]
        if self.arithmetic is Arithmetic.INT8:
            return self.fused("DynamicQuantizeMatMul", x, *inputs, "", *biases)
        zero, step = self.weight("uint8_128", np.array(128, np.uint8)), self.scalar(1 / 127)
        largest = self.op("ReduceMax", self.op("Abs", x), axes=[-1], keepdims=1)
        quantized = self.op("QuantizeLinear", self.op("Div", x, largest), step, zero)
        product = self.fused("MatMulIntegerToFloat", quantized, inputs[0], step, inputs[1], zero)
        scaled = self.op("Mul", product, largest, outputs=[output] if output and bias is None else ())
        return scaled if bias is None else self.op("Add", scaled, *biases)

    def layer_norm(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32], *, output: str | None = None
    ) -> str:
        """Normalise the last axis, with the epsilon of torch."""
        inputs = [x, self.parameter(f"{name}.weight", weight), self.parameter(f"{name}.bias", bias)]
        outputs = [output] if output else []
        return self.op("LayerNormalization", *inputs, outputs=outputs, axis=-1, epsilon=1e-5)

    def model(self) -> onnx.ModelProto:
        """The graph as a model that ONNX Runtime loads; the builder is empty after it."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, [])
        while self.weights:  # each is copied, and not held twice for longer than that
            graph.initializer.append(self.weights.pop(next(iter(self.weights))))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="whisperline")


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise (inputs, outputs) symmetrically with one scale an output: codes and scales (outputs).

    The codes have 7 bits: without VNNI, x86 adds two products of 8 bits in 16 bits, which more would overflow.
    """
    scales = (np.maximum(np.abs(weight).max(axis=0), 1e-8) / _MAX_CODE).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales
