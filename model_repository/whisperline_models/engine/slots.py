"""The decoder's buffers: one slot for each running row, the running rows always in front, written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .graphs import dtype_of

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

    from .graphs import Device, ModelSpec
    from .logit_filters import LogitFilter

MAX_FRAMES = 1500  # encoder frames in 30 s: Whisper has not learnt a longer cross-attention

# Whisper has learnt windows of 30 s, most of which end in silence, and its decoder attends to that silence to end a
# text. Where a window is cut right behind the audio, the decoder repeats itself or invents text instead. So this many
# frames of silence follow a shorter window, as the encoder gives them at the end of 30 s of silence (docs/adr/0005).
SILENCE_FRAMES = 100

# A window as the encoder gives it: keys and values of the cross-attention (2L, H, T, D), an array of the device.
Window = Any
Kept = list[Any]  # the used part of a row's own keys and values, while the row is in no slot

# What a step reads for each row, beside its caches; the names are those of the graph.
_ROW_INPUTS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "token": (np.int64, ()),
    "position": (np.int32, ()),
    "n_frames": (np.int32, ()),
    "mask": (np.int64, ()),
    "timestamps": (np.bool_, ()),
    "timestamp_from": (np.int64, (1,)),
    "timestamp_to": (np.int64, (1,)),
}
_OUTPUTS: dict[str, type[np.generic]] = {"logits": np.float32, "chosen": np.int64, "logprob": np.float32}


class Slots:
    """Buffers on the device for `n_slots` rows, allocated once; a step runs over the first rows of each.

    Each cache is bound as an input and as an output of the graph, which writes it where it lies. Three kinds of them:
    `_own` are the keys and values of the row's text, `_cross` those of its window, and `_last` are the window's last
    frame once more, which the graph's cross-attention wants apart (see `build_decoder` in `export/graphs.py`).
    """

    def __init__(
        self, decoder: onnxruntime.InferenceSession, spec: ModelSpec, device: Device, n_slots: int, silence: Window
    ) -> None:
        self.n_slots = n_slots
        self._decoder, self._device, self._silence = decoder, device, silence
        self._host = {name: np.zeros((n_slots, *shape), dtype) for name, (dtype, shape) in _ROW_INPUTS.items()}
        # A GPU's step may run over more slots than there are rows: those that are unused need at least one frame.
        self._host["n_frames"][:] = 1
        self._inputs = {name: device.mirror(array) for name, array in self._host.items()}

        def caches(prefix: str, shape: tuple[int, ...]) -> dict[str, Any]:
            names = [f"{prefix}{part}_{layer}" for layer in range(spec.n_text_layer) for part in ("key", "value")]
            return {name: device.arrays.zeros((n_slots, *shape), dtype_of(decoder, name)) for name in names}

        head = spec.n_text_state // spec.n_text_head
        self._own = caches("", (spec.n_text_head, spec.n_text_ctx, head))
        self._cross = caches("cross_", (spec.n_text_head, MAX_FRAMES, head))
        self._last = caches("last_", (1, spec.n_text_state))
        widths = {"logits": (spec.n_vocab,), "chosen": (), "logprob": ()}
        self._outputs = {name: device.arrays.zeros((n_slots, *widths[name]), dtype) for name, dtype in _OUTPUTS.items()}
        self._chosen: dict[str, NDArray[np.generic]] = {}  # of the last step, in the host's memory
        self._bindings: dict[int, onnxruntime.IOBinding] = {}  # by the number of slots that a step runs over

    def load(self, slot: int, window: Window, kept: Kept | None = None) -> None:
        """Give a slot a window with silence behind it, and what a row kept when it left another slot."""
        silence = self._silence_after(window)
        n_window, n_frames = window.shape[2], window.shape[2] + silence.shape[2]
        caches = zip(window, silence, self._cross.values(), self._last.values(), strict=True)
        for of_window, of_silence, cross, last in caches:
            cross[slot, :, :n_window], cross[slot, :, n_window:n_frames] = of_window, of_silence
            last[slot, 0] = cross[slot, :, n_frames - 1].reshape(-1)
        self._host["n_frames"][slot] = n_frames
        for own, array in zip(self._own.values(), kept or [], strict=False):
            own[slot, :, : array.shape[1]] = array

    def with_silence(self, window: Window) -> Window:
        """Return a window with the silence behind it."""
        return self._device.arrays.concatenate([window, self._silence_after(window)], axis=2)

    def _silence_after(self, window: Window) -> Window:
        return self._silence[:, :, : MAX_FRAMES - window.shape[2]]  # none after 30 s

    def keep(self, slot: int, n_tokens: int) -> Kept:
        """Copy the keys and values of a row that leaves its slot after `n_tokens`, for its return."""
        return [own[slot, :, :n_tokens].copy() for own in self._own.values()]

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Copy a row's caches, as far as they are used, to the slot of one that has left."""
        n_frames = self._host["n_frames"][source]
        for caches, n_used in ((self._own, n_tokens), (self._cross, n_frames)):
            for cache in caches.values():
                cache[target, :, :n_used] = cache[source, :, :n_used]
        for cache in self._last.values():
            cache[target] = cache[source]
        self._host["n_frames"][target] = n_frames

    def set_input(self, slot: int, token: int, position: int, filtered: LogitFilter) -> None:
        """Set the token that the next step feeds a row, and what the row may choose after it."""
        host = self._host
        host["token"][slot], host["position"][slot] = token, position
        host["mask"][slot], host["timestamps"][slot] = filtered.mask, filtered.timestamps
        host["timestamp_from"][slot], host["timestamp_to"][slot] = filtered.timestamp_from, filtered.timestamp_to

    def step(self, n_rows: int) -> None:
        """Run the decoder over the first `n_rows` slots."""
        device, n_bound = self._device, self._device.bucket(n_rows, self.n_slots)
        if n_bound not in self._bindings:
            # Bound once for each number, to the same buffers: on a GPU the captured graph depends on their addresses.
            binding = self._bindings[n_bound] = self._decoder.io_binding()
            for name, array in (self._inputs | self._last).items():
                device.bind_input(binding, name, array[:n_bound])
            for name, array in self._outputs.items():
                device.bind_output(binding, name, array[:n_bound])
            for name, array in (self._own | self._cross).items():
                device.bind_input(binding, name, array[:n_bound])
                device.bind_output(binding, f"present_{name}", array[:n_bound])
        for name, array in self._inputs.items():
            device.upload(self._host[name], array)
        device.run(self._decoder, self._bindings[n_bound], graph_id=n_bound)
        self._chosen = {name: device.download(self._outputs[name]) for name in ("chosen", "logprob")}

    def chosen(self, slot: int) -> tuple[int, float]:
        """Return the best token that the filters of a row allow, and its logarithmic probability."""
        return int(self._chosen["chosen"][slot]), float(self._chosen["logprob"][slot])

    def logits(self, slot: int) -> NDArray[np.float32]:
        """Return the logits (V) of a row before any filter."""
        logits: NDArray[np.float32] = self._device.download(self._outputs["logits"][slot])
        return logits
