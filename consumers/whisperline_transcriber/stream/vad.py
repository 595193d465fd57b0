"""Detect voice activity with Silero VAD (ONNX), for one frame of each of many sessions in one call.

The model is recurrent. Each session's state is reset at every replay start, so the probabilities of a segment depend
on its own audio alone and a replay may begin at any replay start.
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
CONTEXT_SAMPLES = 64  # the end of the previous frame, which the model expects before each frame
FULL_SCALE = 32_768.0
_RATE = np.array(SAMPLE_RATE, np.int64)


@dataclass(frozen=True)
class VoiceState:
    """The model's memory of one session: its recurrent state and the end of the last frame."""

    recurrent: NDArray[np.float32]  # (2, 128)
    context: NDArray[np.float32]  # (64,)


def fresh_state() -> VoiceState:
    """Return the state before the first frame."""
    return VoiceState(np.zeros((2, 128), np.float32), np.zeros(CONTEXT_SAMPLES, np.float32))


class VoiceActivity:
    """Silero's network in ONNX Runtime, on one thread.

    `noise` is for tests only: it adds normal noise of that standard deviation to every probability, as if arithmetic
    differed between processes. Raises `FileNotFoundError` if `model` does not exist.
    """

    def __init__(self, model: Path, noise: float = 0.0) -> None:
        if not model.is_file():
            raise FileNotFoundError(
                f"there is no voice-activity model at {model}: set vad_model to the Silero ONNX file"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the published file would cause warnings about unused initializers
        self._network = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._noise = noise
        self._random = np.random.default_rng()

    def __call__(self, frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
        """Return the probability of speech and the next state for each frame of 512 samples, row by row."""
        audio = np.stack(frames).astype(np.float32) / FULL_SCALE
        rows = np.concatenate([np.stack([state.context for state in states]), audio], axis=1)
        recurrent = np.stack([state.recurrent for state in states], axis=1)
        output, recurrent = self._network.run(None, {"input": rows, "state": recurrent, "sr": _RATE})
        probabilities = output[:, 0]
        if self._noise:
            noisy = probabilities + self._random.normal(0, self._noise, probabilities.shape)
            probabilities = np.clip(noisy, 0, 1).astype(np.float32)
        return [
            (float(probability), VoiceState(recurrent[:, row], rows[row, -CONTEXT_SAMPLES:]))
            for row, probability in enumerate(probabilities)
        ]
