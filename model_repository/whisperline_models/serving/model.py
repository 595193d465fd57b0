"""Triton's Python backend over the engine that lies beside this file.

The interface is in `config.pbtxt`; an error in one row is that row's alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only

sys.path.insert(0, str(Path(__file__).parent))

from engine.requests import Request, RequestError  # type: ignore[import-not-found]  # this version's copy
from engine.settings import ServingSettings  # type: ignore[import-not-found]
from engine.transcription import Engine  # type: ignore[import-not-found]


class TritonPythonModel:
    """One instance: one engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version that Triton names in `args`."""
        settings = ServingSettings.from_triton(args)
        self.engine = Engine(
            Path(__file__).parent,
            version=args["model_version"],
            max_batch=settings.max_batch,
            threads=settings.threads,
        )
        self.engine.warm_up()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer one dynamic batch: one response a request, in order."""
        parsed = [self._parse(request) for request in requests]
        good = [row for row in parsed if isinstance(row, Request)]
        results = iter(self.engine.transcribe(good))
        return [_failure(row) if isinstance(row, RequestError) else _answer(next(results)) for row in parsed]

    def _parse(self, request: Any) -> Request | RequestError:
        audio, options = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("audio", "options"))
        if audio.shape[0] != 1:
            return RequestError(f"a request carries one row, this one {audio.shape[0]}: send them apart")
        try:
            return Request.parse(audio[0], options[0, 0], self.engine.vocabulary.languages)
        except RequestError as error:
            return error


def _answer(result: Any) -> Any:
    output = np.array([[result.to_json().encode()]], dtype=np.object_)
    return pb_utils.InferenceResponse([pb_utils.Tensor("result", output)])


def _failure(error: RequestError) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
