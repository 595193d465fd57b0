"""Run the decoder over many tokens at once: to read a prompt, or to find when each token of a text was spoken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import N_SAMPLES_PER_TOKEN
from .graphs import dtype_of
from .timing import find_alignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime
    from numpy.typing import NDArray

    from .graphs import Device, Graphs, ModelSpec
    from .requests import Task
    from .slots import Kept, Slots, Window
    from .tokenizer import Tokenizer


class Aligner:
    """Runs the decoder over tokens that are already known, in one run of a graph instead of one step for each."""

    def __init__(self, graphs: Graphs, spec: ModelSpec, device: Device, slots: Slots, tokenizer: Tokenizer) -> None:
        self._graph, self._spec, self._device = graphs.aligner, spec, device
        self._slots, self._tokenizer = slots, tokenizer
        self._names = [f"{part}_{layer}" for layer in range(spec.n_text_layer) for part in ("key", "value")]
        self._dtype = dtype_of(graphs.decoder, "key_0")

    def read(self, window: Window, tokens: Sequence[int]) -> Kept:
        """Return the keys and values that a row has in its caches once it has been fed these tokens from position 0."""
        spec = self._spec
        shape = (len(self._names), 1, spec.n_text_head, len(tokens), spec.n_text_state // spec.n_text_head)
        kept = self._device.arrays.empty(shape, self._dtype)
        self._run(window, tokens, dict(zip(self._names, kept, strict=True)))
        return kept

    def token_starts(
        self,
        window: Window,
        tokens: Sequence[int],
        language: str,
        n_samples: int,
        task: Task = "transcribe",
    ) -> NDArray[np.float64]:
        """Return when each of these text tokens begins, and as the last element when the text ends.

        Times are in seconds from the start of the window. `n_samples` is the length of the audio in the window;
        attention to frames after it is ignored.
        """
        tokenizer = self._tokenizer
        sot_sequence = tokenizer.sot_sequence(language, task)
        binding = self._run(window, [*sot_sequence, tokenizer.no_timestamps, *tokens, tokenizer.eot], {"weights": None})
        (weights,) = binding.copy_outputs_to_cpu()
        n_frames = max(1, n_samples // N_SAMPLES_PER_TOKEN)
        return find_alignment(weights[0, :, :, :n_frames], len(sot_sequence))

    def _run(self, window: Window, tokens: Sequence[int], outputs: dict[str, Any]) -> onnxruntime.IOBinding:
        """Run the graph, and write these outputs to arrays on the device; None lets ONNX Runtime allocate them."""
        device, graph = self._device, self._graph
        inputs = {"tokens": device.mirror(np.array([tokens], np.int64))}
        for name, part in zip(self._names, self._slots.with_silence(window), strict=True):
            inputs[f"cross_{name}"] = part[None]
        binding = graph.io_binding()
        for value in graph.get_inputs():  # the last layer takes no values
            device.bind_input(binding, value.name, inputs[value.name])
        for name, array in outputs.items():
            if array is None:
                binding.bind_output(name)
            else:
                device.bind_output(binding, name, array)
        device.run(graph, binding)
        return binding
