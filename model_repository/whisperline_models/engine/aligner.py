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

    @property
    def reads_together(self) -> bool:
        """True on a GPU. On a CPU prompts are read apart, because a text must not depend on those beside it."""
        return self._device.on_gpu

    def read(self, windows: Sequence[Window], prompts: Sequence[Sequence[int]]) -> list[Kept]:
        """Return the keys and values that a row has in its caches once it has been fed its prompt from position 0.

        The windows have the same length, the prompts may differ in theirs.
        """
        spec, n_tokens = self._spec, max(map(len, prompts))
        head = spec.n_text_state // spec.n_text_head
        shape = (len(self._names), len(prompts), spec.n_text_head, n_tokens, head)
        kept = self._device.arrays.empty(shape, self._dtype)
        # What pads a shorter prompt comes after it, so no token of the prompt attends to it.
        padded = [[*prompt, *[self._tokenizer.eot] * (n_tokens - len(prompt))] for prompt in prompts]
        self._run(windows, padded, dict(zip(self._names, kept, strict=True)))
        return [kept[:, row : row + 1, :, : len(prompt)] for row, prompt in enumerate(prompts)]

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
        text = [*sot_sequence, tokenizer.no_timestamps, *tokens, tokenizer.eot]
        binding = self._run([window], [text], {"weights": None})
        (weights,) = binding.copy_outputs_to_cpu()
        n_frames = max(1, n_samples // N_SAMPLES_PER_TOKEN)
        return find_alignment(weights[0, :, :, :n_frames], len(sot_sequence))

    def _run(
        self, windows: Sequence[Window], tokens: Sequence[Sequence[int]], outputs: dict[str, Any]
    ) -> onnxruntime.IOBinding:
        """Run the graph, and write these outputs to arrays on the device; None lets ONNX Runtime allocate them."""
        device, graph = self._device, self._graph
        inputs = {"tokens": device.mirror(np.array(tokens, np.int64))}
        silenced = [self._slots.with_silence(window) for window in windows]
        joined = silenced[0][:, None] if len(silenced) == 1 else device.arrays.stack(silenced, axis=1)
        inputs |= {f"cross_{name}": part for name, part in zip(self._names, joined, strict=True)}
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
