"""Asking Triton: one request is one piece of audio and needs nothing of any other, so a retry is harmless."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from pydantic import BaseModel, ConfigDict, ValidationError
from tritonclient.utils import InferenceServerException

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.versions import Rollout, RoutingError
from whisperline_transcriber.stream.audio import Samples


class Lane(StrEnum):
    """Whose turn it is in Triton: those of the first go first."""

    FINAL = "final"  # of live speech
    PARTIAL = "partial"  # of live speech
    FILE = "file"


class TritonError(Exception):
    """Triton gave no answer. `retriable` says whether asking again can help."""

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable

    @property
    def version_is_gone(self) -> bool:
        """Whether the version that was asked is not served (any more)."""
        return "unknown model" in str(self)

    @property
    def outcome(self) -> str:
        """What the metrics call it."""
        if self.version_is_gone:
            return "gone"
        return "failed" if self.retriable else "refused"


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
    """How a piece of audio is to be transcribed; the session decides which version of the model does it."""

    session_id: str
    lane: Lane
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
_PERMANENT = (grpc.StatusCode.INVALID_ARGUMENT,)
_STATUS = {"triton_grpc_error": "true"}  # errors come as the status of the stream


class Triton:
    """The model `model` behind the gRPC address `url` ("host:port", or "dns:///name:port" for several pods)."""

    def __init__(self, url: str, model: str, rollout_keep_s: float) -> None:
        self._client = triton.InferenceServerClient(url, channel_args=list(_CHANNEL))
        self._model = model
        self._rollout = Rollout(self._client, rollout_keep_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def transcribe(self, audio: Samples, request: Request) -> Transcript:
        """Return what is said in `audio` (16 kHz). Raises `TritonError`.

        Where the version has been taken out of service since it was asked for, the one after it is asked.
        """
        try:
            return await self._ask(audio, request, await self._version(request))
        except TritonError as error:
            if not error.version_is_gone:
                raise
            metrics.REROUTED.inc()
            self._rollout.forget(request.session_id)
            return await self._ask(audio, request, await self._version(request))

    async def _version(self, request: Request) -> str:
        try:
            return await self._rollout.version(request.session_id, request.deadline_s)
        except RoutingError as error:
            raise TritonError(str(error), retriable=True) from error

    async def _ask(self, audio: Samples, request: Request, version: str) -> Transcript:
        """Ask a version and count what came of it: Triton counts a decoupled model's errors as answers."""
        try:
            transcript = await self._stream(audio, request, version)
        except TritonError as error:
            metrics.ANSWERS.labels(version, error.outcome).inc()
            raise
        metrics.ANSWERS.labels(version, "answered").inc()
        return transcript

    async def _stream(self, audio: Samples, request: Request, version: str) -> Transcript:
        """Ask a version in a stream of its own: the model batches by itself, and unary calls cannot."""
        asked = {"model_name": self._model, "model_version": version, "inputs": _inputs(audio, request)}
        answers = self._client.stream_infer(_once(asked), stream_timeout=request.deadline_s, headers=_STATUS)
        transcript: Transcript | None = None
        try:
            async for result, error in answers:
                # To its end: to leave earlier is to cancel, which Triton may not forget.
                if error is not None:
                    raise TritonError(str(error), retriable=True)
                transcript = Transcript.model_validate_json(bytes(result.as_numpy("result").reshape(-1)[0]))
        except grpc.aio.AioRpcError as error:
            raise TritonError(error.details() or str(error), retriable=error.code() not in _PERMANENT) from error
        except (InferenceServerException, ValidationError, IndexError, AttributeError) as error:
            raise TritonError(f"no usable answer: {error}", retriable=True) from error
        if transcript is None:
            raise TritonError("no answer before the end of the stream", retriable=True)
        return transcript


async def _once(item: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield item


def _inputs(audio: Samples, request: Request) -> list[Any]:
    options = {
        "language": request.language,
        "timestamps": request.words,
        "words": request.words,
        "lane": request.lane.value,
    }
    samples = triton.InferInput("audio", [1, len(audio)], "INT16")
    samples.set_data_from_numpy(audio.reshape(1, -1))
    option = triton.InferInput("options", [1, 1], "BYTES")
    option.set_data_from_numpy(np.array([[json.dumps(options).encode()]], dtype=np.object_))
    return [samples, option]
