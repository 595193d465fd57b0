"""From audio to windows: the spectrogram, and the encoder piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .log_mel import cut_hops
from .sessions import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .sessions import Device, ModelSpec, Sessions
    from .slots import Window

# What the encoder has made of one window so far: first its spectrogram, then states (T, state) of the device, in the
# end a `Window`.
State = Any


class Encoder:
    """Encodes windows in `n_pieces`, so that who encodes can do something else in between."""

    def __init__(self, sessions: Sessions, spec: ModelSpec, device: Device) -> None:
        self._spectrogram, self._pieces = sessions.spectrogram, sessions.encoder
        self._spec, self._device = spec, device
        self._dtype = dtype_of(sessions.decoder, "cross_key_0")

    @property
    def n_pieces(self) -> int:
        """How often `advance` must be called for a window."""
        return len(self._pieces)

    def mel(self, audio: NDArray[np.float32], window_s: float) -> NDArray[np.float32]:
        """The log-mel spectrogram (n_mels, 100 * window_s) of audio (mono 16 kHz, -1..1)."""
        hops, padding = cut_hops(audio, window_s)
        feeds = {"hops": hops[None], "padding": np.array([padding])}
        mel: NDArray[np.float32] = self._spectrogram.run(["mel"], feeds)[0][0]
        return mel

    def advance(self, piece: int, states: Sequence[State]) -> list[State]:
        """Do this piece for states of one length together, each of which the piece before has given."""
        stack = self._device.arrays.stack if piece else np.stack
        given = self._run(piece, self._device.mirror(states[0][None] if len(states) == 1 else stack(states)))
        if piece < self.n_pieces - 1:
            return list(given)
        if len(states) == 1:
            return [given[:, 0]]
        # copies: the last window of several would hold the memory of all
        return [given[:, index].copy() for index in range(len(states))]

    def encode(self, mels: Sequence[NDArray[np.float32]]) -> list[Window]:
        """Do all pieces for spectrograms (n_mels, 2T): the keys and values (2L, H, T, D) of the cross-attention."""
        states: list[State] = list(mels)
        for piece in range(self.n_pieces):
            states = self.advance(piece, states)
        return states

    def window(self, audio: NDArray[np.float32], window_s: float) -> Window:
        """Encode audio (mono 16 kHz, -1..1) in a window of this length."""
        return self.encode([self.mel(audio, window_s)])[0]

    def _run(self, piece: int, states: Any) -> Any:
        """What a piece makes of states (B, n_mels, 2T) or (B, T, state)."""
        session, device, spec = self._pieces[piece], self._device, self._spec
        n_rows, n_frames = len(states), states.shape[1] if piece else states.shape[2] // 2
        shape: tuple[int, ...] = (n_rows, n_frames, spec.n_audio_state)
        if piece == self.n_pieces - 1:
            head = spec.n_text_state // spec.n_text_head
            shape = (2 * spec.n_text_layer, n_rows, spec.n_text_head, n_frames, head)
        given = device.empty(shape, self._dtype)
        binding = session.io_binding()
        device.bind_input(binding, session.get_inputs()[0].name, states)
        device.bind_output(binding, "cross" if piece == self.n_pieces - 1 else "next_state", given)
        device.run(session, binding)
        return given
