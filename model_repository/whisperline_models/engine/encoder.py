"""Turn audio into encoded windows: the spectrogram, then the encoder, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import cut_hops
from .graphs import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .graphs import Device, Graphs, ModelSpec
    from .slots import Window

# One window on its way through the encoder: before the first piece its spectrogram (n_mels, 2T) in host memory, between
# two pieces the hidden states (T, n_audio_state) on the device, and after the last piece a `Window`.
State = Any


class Encoder:
    """Encodes windows in `n_pieces` graph runs, so that the engine can do more urgent work in between."""

    def __init__(self, graphs: Graphs, spec: ModelSpec, device: Device) -> None:
        self._spectrogram, self._pieces = graphs.spectrogram, graphs.encoder
        self._spec, self._device = spec, device
        self._dtype = dtype_of(graphs.decoder, "cross_key_0")

    @property
    def n_pieces(self) -> int:
        """The number of `advance` calls that encode a window."""
        return len(self._pieces)

    def mel(self, audio: NDArray[np.float32], window_s: float) -> NDArray[np.float32]:
        """Return the log-mel spectrogram (n_mels, 100 * window_s) of audio (mono 16 kHz, -1..1)."""
        hops, padding = cut_hops(audio, window_s)
        feeds = {"hops": hops[None], "padding": np.array([padding])}
        mel: NDArray[np.float32] = self._spectrogram.run(["mel"], feeds)[0][0]
        return mel

    def advance(self, piece: int, states: Sequence[State]) -> list[State]:
        """Run piece number `piece` over windows of equal length together, and return the next state of each.

        The first piece takes spectrograms; the last one returns `Window`s.
        """
        device, spec = self._device, self._spec
        stack = np.stack if piece == 0 else device.arrays.stack  # spectrograms are in host memory
        batch = device.mirror(states[0][None] if len(states) == 1 else stack(states))
        n_frames = batch.shape[1] if piece else batch.shape[2] // 2
        is_last = piece == self.n_pieces - 1
        if is_last:
            head = spec.n_text_state // spec.n_text_head
            shape: tuple[int, ...] = (2 * spec.n_text_layer, len(states), spec.n_text_head, n_frames, head)
        else:
            shape = (len(states), n_frames, spec.n_audio_state)
        graph, output = self._pieces[piece], device.arrays.empty(shape, self._dtype)
        binding = graph.io_binding()
        device.bind_input(binding, graph.get_inputs()[0].name, batch)
        device.bind_output(binding, "cross" if is_last else "next_state", output)
        device.run(graph, binding)
        if not is_last:
            return list(output)
        if len(states) == 1:
            return [output[:, 0]]
        # Copy, because a view of one window would keep the memory of all of them until the last is decoded.
        return [output[:, index].copy() for index in range(len(states))]

    def encode(self, mels: Sequence[NDArray[np.float32]]) -> list[Window]:
        """Encode spectrograms (n_mels, 2T) of equal length by running all pieces in turn."""
        states: list[State] = list(mels)
        for piece in range(self.n_pieces):
            states = self.advance(piece, states)
        return states

    def window(self, audio: NDArray[np.float32], window_s: float) -> Window:
        """Encode audio (mono 16 kHz, -1..1) in a window of `window_s` seconds."""
        return self.encode([self.mel(audio, window_s)])[0]
