"""Run the aligner graph over a decoded text, to find when each of its tokens was spoken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .audio import N_SAMPLES_PER_TOKEN
from .timing import find_alignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .graphs import Device, Graphs, ModelSpec
    from .requests import Task
    from .slots import Slots, Window
    from .tokenizer import Tokenizer


class Aligner:
    """Times a decoded text by the decoder's cross-attention over the whole text, in one run of the graph."""

    def __init__(self, graphs: Graphs, spec: ModelSpec, device: Device, slots: Slots, tokenizer: Tokenizer) -> None:
        self._graph, self._device, self._slots, self._tokenizer = graphs.aligner, device, slots, tokenizer
        self._names = [f"cross_{part}_{layer}" for layer in range(spec.n_text_layer) for part in ("key", "value")]

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
        tokenizer, device, graph = self._tokenizer, self._device, self._graph
        sot_sequence = tokenizer.sot_sequence(language, task)
        text = np.array([[*sot_sequence, tokenizer.no_timestamps, *tokens, tokenizer.eot]], np.int64)
        inputs = {"tokens": device.mirror(text)}
        for name, part in zip(self._names, self._slots.with_silence(window), strict=True):
            inputs[name] = part[None]
        binding = graph.io_binding()
        for value in graph.get_inputs():  # the graph stops at the layer of the last alignment head
            device.bind_input(binding, value.name, inputs[value.name])
        binding.bind_output("weights")
        device.run(graph, binding)
        (weights,) = binding.copy_outputs_to_cpu()
        n_frames = max(1, n_samples // N_SAMPLES_PER_TOKEN)
        return find_alignment(weights[:, :, :n_frames], len(sot_sequence))
