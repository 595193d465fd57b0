"""Voice activity: Silero VAD (ONNX), one frame of many sessions in one call.

The model is recurrent: each session has a state, which is reset wherever a segment may begin, so that the
probabilities of a segment depend on its own audio alone and a replay may begin at any such place.
Source: https://github.com/snakers4/silero-vad (MIT), `silero_vad_op18_ifless.onnx`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from whisperline_transcriber.stream.audio import SAMPLE_RATE, Samples

FRAME_SAMPLES = 512  # 32 ms at 16 kHz
CONTEXT_SAMPLES = 64  # of the frame before, which the model wants in front
FULL_SCALE = 32_768.0
_RATE = np.array(SAMPLE_RATE, np.int64)


@dataclass(frozen=True)
class VoiceState:
    """What the model remembers of one session: its recurrent state and the end of the last frame."""

    recurrent: NDArray[np.float32]  # (2, 128)
    context: NDArray[np.float32]  # (64,)


def fresh_state() -> VoiceState:
    """Return the state before the first frame."""
    return VoiceState(np.zeros((2, 128), np.float32), np.zeros(CONTEXT_SAMPLES, np.float32))


class VoiceActivity:
    """Silero's network in one ONNX Runtime session with one thread.

    `noise` is for tests of what happens when arithmetic differs: it adds normal noise of that deviation to
    every probability, different in every process.
    """

    def __init__(self, model: Path, noise: float = 0.0) -> None:
        if not model.is_file():
            raise FileNotFoundError(
                f"there is no voice-activity model at {model}: set vad_model to the Silero ONNX file"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors: the published file holds initializers that nothing uses
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._noise = noise
        self._random = np.random.default_rng()

    def __call__(self, frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
        """Return the probability of speech and the next state for each frame of 512 samples, row by row."""
        audio = np.stack(frames).astype(np.float32) / FULL_SCALE
        rows = np.concatenate([np.stack([state.context for state in states]), audio], axis=1)
        recurrent = np.stack([state.recurrent for state in states], axis=1)
        output, recurrent = self._session.run(None, {"input": rows, "state": recurrent, "sr": _RATE})
        probabilities = self._perturbed(output[:, 0])
        return [
            (float(probability), VoiceState(recurrent[:, row], rows[row, -CONTEXT_SAMPLES:]))
            for row, probability in enumerate(probabilities)
        ]

    def _perturbed(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._noise:
            return probabilities
        noisy = probabilities + self._random.normal(0, self._noise, probabilities.shape)
        return np.clip(noisy, 0, 1).astype(np.float32)
