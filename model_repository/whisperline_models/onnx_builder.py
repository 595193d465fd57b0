"""A small builder of ONNX graphs: operators in order, weights by name, one matrix product in any precision."""

from __future__ import annotations

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
FLOAT, INT32, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
_BLOCK_SIZE = 32  # input channels that share one scale in an 8 bit matrix


class GraphBuilder:
    """Collects inputs, outputs, weights and nodes; every method that adds a node returns its output's name."""

    def __init__(self, name: str, *, quantize_matmuls: bool = False) -> None:
        self.name = name
        self.quantize_matmuls = quantize_matmuls
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
        """Add a constant once; a second call with the same name returns the first."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

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
        outputs = [output] if output and bias is None else []
        if self.quantize_matmuls and weight.shape[1] % _BLOCK_SIZE == 0:
            y = self._matmul_8bit(x, name, weight, outputs)
        else:
            y = self.op("MatMul", x, self.weight(f"{name}.weight", weight.T), outputs=outputs)
        return y if bias is None else self.op("Add", y, self.weight(f"{name}.bias", bias))

    def _matmul_8bit(self, x: str, name: str, weight: NDArray[np.float32], outputs: list[str]) -> str:
        codes, scales = quantize_8bit(weight)
        inputs = [x, self.weight(f"{name}.codes", codes), self.weight(f"{name}.scales", scales)]
        n, k = weight.shape
        # accuracy_level 4: activations in int8 with one scale a row and block, so that rows stay apart
        attributes = {"K": k, "N": n, "bits": 8, "block_size": _BLOCK_SIZE, "accuracy_level": 4}
        return self.fused("MatMulNBits", *inputs, outputs=outputs, **attributes)

    def layer_norm(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32], *, output: str | None = None
    ) -> str:
        """Normalise the last axis, with the epsilon of torch."""
        inputs = [x, self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)]
        outputs = [output] if output else []
        return self.op("LayerNormalization", *inputs, outputs=outputs, axis=-1, epsilon=1e-5)

    def model(self) -> onnx.ModelProto:
        """The graph as a model that ONNX Runtime loads."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, initializer=list(self.weights.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="whisperline")


def quantize_8bit(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise (outputs, inputs) symmetrically in blocks along the inputs, as `MatMulNBits` stores them.

    Returns codes of shape (outputs, blocks, block) with 128 for zero, and scales of shape (outputs, blocks).
    """
    blocks = weight.reshape(weight.shape[0], -1, _BLOCK_SIZE)
    scales = np.maximum(np.abs(blocks).max(axis=2), 1e-8) / 127
    codes = np.clip(np.rint(blocks / scales[..., None]) + 128, 0, 255)
    return codes.astype(np.uint8), scales.astype(np.float32)
