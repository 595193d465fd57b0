"""The buffers of a decoder graph, which updates them in place: one slot for each running window, from slot 0 on.

Greedy decoding has one row for each window. Beam search has a fixed number of rows that share a window: those of slot s
are rows s * n_beams to (s + 1) * n_beams - 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .graphs import dtype_of

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

    from .graphs import Device, ModelSpec
    from .logit_filters import LogitFilter

MAX_FRAMES = 1500  # encoder frames in 30 s, the longest window that Whisper was trained with

# Whisper was trained with windows of 30 s, most of which end in silence, and its decoder attends to that silence to end
# a text. If a window ends right after the audio, the decoder repeats itself or invents text instead. So a shorter
# window is followed by this many frames of silence, taken from the end of 30 s of encoded silence (docs/adr/0005).
SILENCE_FRAMES = 100

# An encoded window: the keys and values of the cross-attention, an array (2L, H, T, D) on the device.
Window = Any
# Self-attention keys and values outside the slots: an array (2L, rows, H, tokens, D) on the device.
Kept = Any

# The inputs of a step for each row (`n_frames`: for each window), except its caches, under the names of the graph.
_ROW_INPUTS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "token": (np.int64, ()),
    "position": (np.int32, ()),
    "n_frames": (np.int32, ()),
    "mask": (np.int64, ()),
    "timestamps": (np.bool_, ()),
    "timestamp_from": (np.int64, (1,)),
    "timestamp_to": (np.int64, (1,)),
}


class Slots:
    """Buffers on the device for `n_slots` windows of `n_beams` rows, allocated once; a step runs over the first slots.

    There are three kinds of caches. `_own` holds the self-attention keys and values of a row's text, and `_cross` the
    cross-attention keys and values of its window. Both are bound as inputs and as outputs of the graph, which updates
    them in place. `_last` holds a copy of the window's last frame, which the graph takes as a separate input (see
    `build_decoder` in `export/graphs.py`).
    """

    def __init__(
        self,
        decoder: onnxruntime.InferenceSession,
        spec: ModelSpec,
        device: Device,
        silence: Window,
        *,
        n_slots: int,
        n_beams: int = 1,
    ) -> None:
        self.n_slots, self.n_beams = n_slots, n_beams
        n_rows = n_slots * n_beams
        self._decoder, self._device, self._silence = decoder, device, silence
        self._host = {name: np.zeros((n_rows, *shape), dtype) for name, (dtype, shape) in _ROW_INPUTS.items()}
        self._host["n_frames"] = np.zeros(n_slots, np.int32)
        # On a GPU, a step may run over more slots than there are rows. Unused slots need at least one frame, too.
        self._host["n_frames"][:] = 1
        self._inputs = {name: device.mirror(array) for name, array in self._host.items()}

        def caches(prefix: str, shape: tuple[int, ...]) -> dict[str, Any]:
            names = [f"{prefix}{part}_{layer}" for layer in range(spec.n_text_layer) for part in ("key", "value")]
            return {name: device.arrays.zeros((n_slots, *shape), dtype_of(decoder, name)) for name in names}

        head = spec.n_text_state // spec.n_text_head
        own = (2 * spec.n_text_layer, n_rows, spec.n_text_head, spec.n_text_ctx, head)
        self._own = device.arrays.zeros(own, dtype_of(decoder, "key_0"))
        self._cross = caches("cross_", (spec.n_text_head, MAX_FRAMES, head))
        self._last = caches("last_", (1, spec.n_text_state))
        best = (n_rows,) if n_beams == 1 else (n_rows, n_beams + 1)
        self._outputs = {
            "logits": device.arrays.zeros((n_rows, spec.n_vocab), np.float32),
            "chosen": device.arrays.zeros(best, np.int64),
            "logprob": device.arrays.zeros(best, np.float32),
        }
        self._chosen: dict[str, NDArray[Any]] = {}  # outputs of the last step, in host memory
        self._bindings: dict[int, onnxruntime.IOBinding] = {}  # by the number of slots that a step runs over

    def load(self, slot: int, window: Window, kept: Kept | None = None) -> None:
        """Write a window and the silence after it into a slot, and the keys and values that a returning row kept."""
        silence = self._silence_after(window)
        n_window, n_frames = window.shape[2], window.shape[2] + silence.shape[2]
        caches = zip(window, silence, self._cross.values(), self._last.values(), strict=True)
        for of_window, of_silence, cross, last in caches:
            cross[slot, :, :n_window], cross[slot, :, n_window:n_frames] = of_window, of_silence
            last[slot, 0] = cross[slot, :, n_frames - 1].reshape(-1)
        self._host["n_frames"][slot] = n_frames
        if kept is not None:
            self.write(slot, kept)

    def write(self, slot: int, kept: Kept) -> None:
        """Write keys and values of the first tokens into a slot: those of each row, or of one for all."""
        self._own[:, self._rows(slot), :, : kept.shape[3]] = kept

    def with_silence(self, window: Window) -> Window:
        """Return a window with the silence after it."""
        return self._device.arrays.concatenate([window, self._silence_after(window)], axis=2)

    def _silence_after(self, window: Window) -> Window:
        return self._silence[:, :, : MAX_FRAMES - window.shape[2]]  # empty for a window of 30 s

    def keep(self, slot: int, n_tokens: int) -> Kept:
        """Return a copy of a slot's self-attention keys and values of the first `n_tokens`, for when they return."""
        return self._own[:, self._rows(slot), :, :n_tokens].copy()

    def copy(self, source: int, target: int, begin: int, end: int) -> None:
        """Copy the self-attention keys and values of a row's positions from `begin` to `end` to another row."""
        self._own[:, target, :, begin:end] = self._own[:, source, :, begin:end]

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Copy the used part of a slot's caches to another slot."""
        n_frames = self._host["n_frames"][source]
        self._own[:, self._rows(target), :, :n_tokens] = self._own[:, self._rows(source), :, :n_tokens]
        for cache in self._cross.values():
            cache[target, :, :n_frames] = cache[source, :, :n_frames]
        for cache in self._last.values():
            cache[target] = cache[source]
        self._host["n_frames"][target] = n_frames

    def _rows(self, slot: int) -> slice:
        return slice(slot * self.n_beams, (slot + 1) * self.n_beams)

    def set_input(self, row: int, token: int, position: int, filtered: LogitFilter) -> None:
        """Set a row's input token for the next step, and the filter on the token that the step chooses."""
        host = self._host
        host["token"][row], host["position"][row] = token, position
        host["mask"][row], host["timestamps"][row] = filtered.mask, filtered.timestamps
        host["timestamp_from"][row], host["timestamp_to"][row] = filtered.timestamp_from, filtered.timestamp_to

    def step(self, n_used: int) -> None:
        """Run the decoder over the first `n_used` slots."""
        device, n_bound = self._device, self._device.bucket(n_used, self.n_slots)
        if n_bound not in self._bindings:
            # Bind once for each number of slots. On a GPU, the captured graph depends on the addresses of the buffers.
            binding = self._bindings[n_bound] = self._decoder.io_binding()
            by_window = {"n_frames": self._inputs["n_frames"], **self._last, **self._cross}
            names = [f"{part}_{layer}" for layer in range(len(self._own) // 2) for part in ("key", "value")]
            caches = dict(zip(names, self._own, strict=True)) | self._cross
            for name, array in (self._inputs | self._last | caches).items():
                n_items = n_bound if name in by_window else n_bound * self.n_beams
                device.bind_input(binding, name, array[:n_items])
                if name in caches:
                    device.bind_output(binding, f"present_{name}", array[:n_items])
            for name, array in self._outputs.items():
                device.bind_output(binding, name, array[: n_bound * self.n_beams])
        for name, array in self._inputs.items():
            device.upload(self._host[name], array)
        device.run(self._decoder, self._bindings[n_bound], graph_id=n_bound)
        self._chosen = {name: device.download(self._outputs[name]) for name in ("chosen", "logprob")}

    def chosen(self, row: int) -> list[tuple[int, float]]:
        """Return the best tokens that a row's filter allows, with their log probabilities: one, or n_beams + 1."""
        tokens, logprobs = (np.atleast_1d(self._chosen[name][row]) for name in ("chosen", "logprob"))
        return list(zip(tokens.tolist(), logprobs.tolist(), strict=True))

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the unfiltered logits (V) of a row."""
        logits: NDArray[np.float32] = self._device.download(self._outputs["logits"][row])
        return logits
