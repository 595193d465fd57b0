"""The decoder's buffers: one slot a running row, the running rows always in front, written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .sessions import ModelSpec

_ROW_INPUTS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "token": (np.int64, ()),
    "position": (np.int32, ()),
    "n_frames": (np.int32, ()),
    "phase": (np.int64, ()),
    "timed": (np.bool_, ()),
    "time_from": (np.int64, (1,)),
    "time_to": (np.int64, (1,)),
}


class Slots:
    """Buffers for up to `n_slots` rows, allocated once; a step runs over the first rows of each.

    `inputs` and `outputs` are NumPy arrays whose first axis is the slot. The caches are inputs and outputs at
    once: the graph writes them where they lie.
    """

    def __init__(self, decoder: onnxruntime.InferenceSession, spec: ModelSpec, n_slots: int, max_frames: int) -> None:
        self._decoder = decoder
        head = spec.n_text_state // spec.n_text_head
        self.inputs = {name: np.zeros((n_slots, *shape), dtype) for name, (dtype, shape) in _ROW_INPUTS.items()}
        self._caches: dict[str, NDArray[np.float32]] = {}
        for layer in range(spec.n_text_layer):
            for part in ("key", "value"):
                self._add(f"{part}_{layer}", (n_slots, spec.n_text_head, spec.n_text_ctx, head))
                self._add(f"cross_{part}_{layer}", (n_slots, spec.n_text_head, max_frames, head))
                self.inputs[f"last_{part}_{layer}"] = np.zeros((n_slots, 1, spec.n_text_state), np.float32)
        self.outputs: dict[str, NDArray[np.generic]] = {
            "logits": np.empty((n_slots, spec.n_vocab), np.float32),
            "chosen": np.empty(n_slots, np.int64),
            "logprob": np.empty(n_slots, np.float32),
        }
        self._bindings: dict[int, onnxruntime.IOBinding] = {}

    def _add(self, name: str, shape: tuple[int, ...]) -> None:
        self._caches[name] = np.zeros(shape, np.float32)

    def load(self, slot: int, window: Mapping[str, NDArray[np.float32]]) -> None:
        """Give a slot the encoder's outputs `cross_key_i`, `cross_value_i`, each (H, T, D)."""
        for name, value in window.items():
            n_frames = value.shape[1]
            self._caches[name][slot, :, :n_frames] = value
            self.inputs[name.replace("cross", "last")][slot, 0] = value[:, -1].reshape(-1)
            self.inputs["n_frames"][slot] = n_frames

    def move(self, source: int, target: int) -> None:
        """Copy a row with what it has in its caches, to close the gap of one that has finished."""
        n_tokens, n_frames = (int(self.inputs[name][source]) for name in ("position", "n_frames"))
        for name, cache in self._caches.items():
            used = n_frames if name.startswith("cross") else n_tokens + 1
            cache[target, :, :used] = cache[source, :, :used]
        for array in (*self.inputs.values(), *self.outputs.values()):
            array[target] = array[source]

    def step(self, n_rows: int) -> None:
        """Run the decoder over the first `n_rows` slots; `outputs` hold the result."""
        if n_rows not in self._bindings:
            self._bindings[n_rows] = self._bind(n_rows)
        self._decoder.run_with_iobinding(self._bindings[n_rows])

    def _bind(self, n_rows: int) -> onnxruntime.IOBinding:
        binding = self._decoder.io_binding()
        for name, array in self.inputs.items():
            binding.bind_ortvalue_input(name, _share(array[:n_rows]))
        for name, array in self.outputs.items():
            binding.bind_ortvalue_output(name, _share(array[:n_rows]))
        for name, array in self._caches.items():
            shared = _share(array[:n_rows])
            binding.bind_ortvalue_input(name, shared)
            binding.bind_ortvalue_output(f"present_{name}", shared)
        return binding


def _share(array: NDArray[np.generic]) -> onnxruntime.OrtValue:
    """An ONNX Runtime value over the same memory: on the CPU nothing is copied."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
