"""Asking Triton: one request is one piece of audio and needs nothing of any other, so a retry is harmless."""

import json
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from pydantic import BaseModel, ConfigDict, ValidationError
from tritonclient.utils import InferenceServerException

from whisperline_transcriber.audio import Samples


class Priority(IntEnum):
    """Triton's queue priorities: the lowest number goes first."""

    LIVE_FINAL = 1
    LIVE_PARTIAL = 2
    FILE = 3


class TritonError(Exception):
    """Triton gave no answer. `retriable` says whether asking again can help."""

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable


class SegmentWord(BaseModel):
    """A word with its times from the start of the audio that was sent."""

    word: str
    start_ms: int
    end_ms: int
    confidence: float


class Transcript(BaseModel):
    """What the model says of one piece of audio. An empty `text` means that it holds no words."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    text: str
    language: str
    words: list[SegmentWord]
    avg_logprob: float
    model: str
    version: str


@dataclass(frozen=True)
class Request:
    """How a piece of audio is to be transcribed."""

    priority: Priority
    language: str | None
    words: bool
    deadline_s: float


# `channel_args` replace all of the client's defaults, so the message sizes stand here again.
_CHANNEL = (
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_PERMANENT = (str(grpc.StatusCode.INVALID_ARGUMENT),)


class Triton:
    """The model `model` behind the gRPC address `url` ("host:port", or "dns:///name:port" for several pods)."""

    def __init__(self, url: str, model: str) -> None:
        self._client = triton.InferenceServerClient(url, channel_args=list(_CHANNEL))
        self._model = model

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def transcribe(self, audio: Samples, request: Request) -> Transcript:
        """Return what is said in `audio` (16 kHz). Raises `TritonError`."""
        try:
            result = await self._client.infer(
                self._model,
                _inputs(audio, request),
                priority=int(request.priority),
                client_timeout=request.deadline_s,
            )
            return Transcript.model_validate_json(bytes(result.as_numpy("result").reshape(-1)[0]))
        except InferenceServerException as error:
            raise TritonError(str(error), retriable=error.status() not in _PERMANENT) from error
        except (grpc.RpcError, ValidationError, IndexError, AttributeError) as error:
            raise TritonError(f"no usable answer: {error}", retriable=True) from error


def _inputs(audio: Samples, request: Request) -> list[Any]:
    options = {"language": request.language, "timestamps": request.words, "words": request.words}
    samples = triton.InferInput("audio", [1, len(audio)], "INT16")
    samples.set_data_from_numpy(audio.reshape(1, -1))
    option = triton.InferInput("options", [1, 1], "BYTES")
    option.set_data_from_numpy(np.array([[json.dumps(options).encode()]], dtype=np.object_))
    return [samples, option]
