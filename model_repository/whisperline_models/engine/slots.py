"""The decoder's buffers: one slot a running row, the running rows always in front, written in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .sessions import dtype_of

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

    from .rules import Constraint
    from .sessions import Device, ModelSpec

MAX_FRAMES = 1500  # of 30 s: a longer cross-attention Whisper has not learnt
# Whisper has learnt windows of 30 s, most of which end in silence, and its decoder looks there when all is said. Where
# a window is cut behind the audio it repeats itself instead, or invents: so these frames of silence stand behind it, as
# the encoder hears them at the end of 30 s (docs/adr/0005).
SILENCE_FRAMES = 100

# A window as the encoder gives it: keys and values of the cross-attention (2L, H, T, D), an array of the device.
Window = Any
Kept = list[Any]  # the used part of a row's own keys and values

_ROW_INPUTS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "token": (np.int64, ()),
    "position": (np.int32, ()),
    "n_frames": (np.int32, ()),
    "phase": (np.int64, ()),
    "timed": (np.bool_, ()),
    "time_from": (np.int64, (1,)),
    "time_to": (np.int64, (1,)),
}
_OUTPUTS: dict[str, type[np.generic]] = {"logits": np.float32, "chosen": np.int64, "logprob": np.float32}


class Slots:
    """Buffers on the device for `n_slots` rows, allocated once; a step runs over the first rows of each.

    The caches are inputs and outputs of the graph at once: it writes them where they lie.
    """

    def __init__(
        self, decoder: onnxruntime.InferenceSession, spec: ModelSpec, device: Device, n_slots: int, silence: Window
    ) -> None:
        self.n_slots = n_slots
        self._decoder, self._device, self._silence = decoder, device, silence
        self._host = {name: np.zeros((n_slots, *shape), dtype) for name, (dtype, shape) in _ROW_INPUTS.items()}
        self._host["n_frames"][:] = 1  # of slots that a batch's size brings along, unused
        self._inputs = {name: device.mirror(array) for name, array in self._host.items()}
        head = spec.n_text_state // spec.n_text_head
        own = (n_slots, spec.n_text_head, spec.n_text_ctx, head)
        cross = (n_slots, spec.n_text_head, MAX_FRAMES, head)
        parts = [(part, layer) for layer in range(spec.n_text_layer) for part in ("key", "value")]
        self._own = {f"{part}_{layer}": self._zeros(f"{part}_{layer}", own) for part, layer in parts}
        self._cross = {f"cross_{p}_{i}": self._zeros(f"cross_{p}_{i}", cross) for p, i in parts}
        self._last = {f"last_{p}_{i}": self._zeros(f"last_{p}_{i}", (n_slots, 1, spec.n_text_state)) for p, i in parts}
        widths = {"logits": (spec.n_vocab,), "chosen": (), "logprob": ()}
        self._outputs = {name: device.zeros((n_slots, *widths[name]), dtype) for name, dtype in _OUTPUTS.items()}
        self._chosen: dict[str, NDArray[np.generic]] = {}
        self._bindings: dict[int, onnxruntime.IOBinding] = {}

    def _zeros(self, name: str, shape: tuple[int, ...]) -> Any:
        return self._device.zeros(shape, dtype_of(self._decoder, name))

    def load(self, slot: int, window: Window, kept: Kept | None = None) -> None:
        """Give a slot a window, silence behind it, and what a row kept when it left its slot."""
        n_frames, behind = window.shape[2], self._behind(window)
        n_followed = n_frames + behind.shape[2]
        caches = zip(window, behind, self._cross.values(), self._last.values(), strict=True)
        for part, silence, cross, last in caches:
            cross[slot, :, :n_frames], cross[slot, :, n_frames:n_followed] = part, silence
            last[slot, 0] = cross[slot, :, n_followed - 1].reshape(-1)
        self._host["n_frames"][slot] = n_followed
        for own, array in zip(self._own.values(), kept or [], strict=False):
            own[slot, :, : array.shape[1]] = array

    def followed(self, window: Window) -> Window:
        """A window with the silence behind it."""
        return self._device.arrays.concatenate([window, self._behind(window)], axis=2)

    def _behind(self, window: Window) -> Window:
        return self._silence[:, :, : MAX_FRAMES - window.shape[2]]

    def keep(self, slot: int, n_tokens: int) -> Kept:
        """Copy a row's own keys and values, for its return."""
        return [own[slot, :, :n_tokens].copy() for own in self._own.values()]

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Copy a row with what it has in its caches, to close the gap of one that has left."""
        n_frames = self._host["n_frames"][source]
        for caches, used in ((self._own, n_tokens), (self._cross, n_frames), (self._last, 1)):
            for cache in caches.values():
                if cache.ndim == 4:
                    cache[target, :, :used] = cache[source, :, :used]
                else:
                    cache[target] = cache[source]
        self._host["n_frames"][target] = n_frames

    def feed(self, slot: int, token: int, position: int, constraint: Constraint) -> None:
        """Set what the next step feeds a row, and what it may choose."""
        host = self._host
        host["token"][slot], host["position"][slot] = token, position
        host["phase"][slot], host["timed"][slot] = constraint.phase, constraint.timed
        host["time_from"][slot], host["time_to"][slot] = constraint.time_from, constraint.time_to

    def step(self, n_rows: int) -> None:
        """Run the decoder over the first `n_rows` slots."""
        bucket = self._device.bucket(n_rows, self.n_slots)
        if bucket not in self._bindings:
            self._bindings[bucket] = self._bind(bucket)
        for name, array in self._inputs.items():
            self._device.upload(self._host[name], array)
        self._device.run(self._decoder, self._bindings[bucket], graph_id=bucket)
        self._chosen = {name: self._device.download(self._outputs[name]) for name in ("chosen", "logprob")}

    def chosen(self, slot: int) -> tuple[int, float]:
        """The best token that the rules of a row allow, and its logarithmic probability."""
        return int(self._chosen["chosen"][slot]), float(self._chosen["logprob"][slot])

    def logits(self, slot: int) -> NDArray[np.float32]:
        """The logits (V) of a row before any rule."""
        logits: NDArray[np.float32] = self._device.download(self._outputs["logits"][slot])
        return logits

    def _bind(self, n_rows: int) -> onnxruntime.IOBinding:
        binding = self._decoder.io_binding()
        for name, array in (self._inputs | self._last).items():
            self._device.bind_input(binding, name, array[:n_rows])
        for name, array in self._outputs.items():
            self._device.bind_output(binding, name, array[:n_rows])
        for name, array in (self._own | self._cross).items():
            self._device.bind_input(binding, name, array[:n_rows])
            self._device.bind_output(binding, f"present_{name}", array[:n_rows])
        return binding
