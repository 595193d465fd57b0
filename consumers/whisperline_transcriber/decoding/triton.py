"""Send audio to Triton. Each request is self-contained, so a retry is harmless."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from pydantic import ValidationError
from tritonclient.utils import InferenceServerException
from whisperline_runtime.tracing import current_traceparent

from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.versions import VersionCache
from whisperline_transcriber.errors import TritonError
from whisperline_transcriber.stream.audio import Samples, milliseconds
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.session import Session


class Lane(StrEnum):
    """The lanes of Triton's queue, the most urgent first."""

    FINAL = "final"  # of live speech
    PARTIAL = "partial"  # of live speech
    FILE = "file"


@dataclass(frozen=True)
class Request:
    """The options with which a piece of a session's audio is transcribed, in any lane.

    The session id determines which version of the model serves it. `prompt` is the text before the audio. `prefix` is
    the text of the first `prefix_ms` of the audio itself, which the answer leaves out.
    """

    session_id: str
    language: str | None = None  # None: detect
    languages: tuple[str, ...] = ()  # that detection may choose from; empty: all
    prompt: str = ""
    prefix: str = ""
    prefix_ms: int = 0
    hotwords: tuple[str, ...] = ()  # words and names to expect

    def options(self, lane: Lane) -> dict[str, object]:
        """Return the options of the model's interface. Those that have their default are left out."""
        is_partial = lane is Lane.PARTIAL
        given = {
            "languages": list(self.languages),
            "prompt": self.prompt,
            "prefix": self.prefix,
            "prefix_ms": self.prefix_ms,
            "hotwords": list(self.hotwords),
        }
        return {
            "language": self.language,
            "words": "rough" if is_partial else True,
            "lane": lane.value,
            **{name: value for name, value in given.items() if value},
        }


def request_of(session: Session, window: Window) -> Request:
    """Return the request for a window of a session."""
    options = session.options
    return Request(
        session.id,
        window.language,
        languages=options.languages,
        prompt=window.prompt,
        prefix=window.prefix,
        prefix_ms=milliseconds(window.segment_start - window.start) if window.prefix else 0,
        hotwords=options.keyterms,
    )


# `channel_args` replace all of the client's defaults, so the message sizes are repeated here.
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
LOOKUP_DEADLINE_S = 5.0
_PERMANENT = (grpc.StatusCode.INVALID_ARGUMENT,)


class Triton:
    """The model `model` behind the gRPC address `url` ("host:port", or "dns:///name:port" for several pods).

    `rollout_keep_s` is how long a session's version of the model is cached before it is looked up again, in seconds.
    """

    def __init__(
        self, url: str, model: str, rollout_keep_s: float, *, client: triton.InferenceServerClient | None = None
    ) -> None:
        self._client = client or triton.InferenceServerClient(url, channel_args=list(_CHANNEL))
        self._model = model
        self._versions = VersionCache(self._client, rollout_keep_s)
        self._languages: dict[str, frozenset[str] | None] = {}  # by version

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def languages(self, session_id: str) -> frozenset[str] | None:
        """Return the codes of the languages that the session's version of the model knows.

        None if its repository was made by a release that did not write them down. Raises `TritonError`.
        """
        version = await self._versions.version_of(session_id, LOOKUP_DEADLINE_S)
        if version not in self._languages:
            try:
                answer = await self._client.get_model_config(self._model, version, client_timeout=LOOKUP_DEADLINE_S)
            except (InferenceServerException, grpc.RpcError) as error:
                raise TritonError(
                    f"the languages of version {version} are not known: {error}", is_retriable=True
                ) from error
            parameters = answer.config.parameters
            name = f"languages.{version}"
            known = frozenset(parameters[name].string_value.split(",")) if name in parameters else None
            self._languages[version] = known
        return self._languages[version]

    async def transcribe(self, audio: Samples, request: Request, lane: Lane, deadline_s: float) -> Transcript:
        """Return the transcript of `audio` (16 kHz), with words; those of a partial have rough times.

        Raises `TritonError`, at the latest after `deadline_s` seconds.

        If the version was unloaded after it was looked up, the request goes to the version that replaced it.
        """
        try:
            return await self._ask_version(audio, request, lane, deadline_s)
        except TritonError as error:
            if not error.version_is_gone:
                raise
            metrics.REROUTED_REQUESTS.inc()
            self._versions.forget(request.session_id)
            return await self._ask_version(audio, request, lane, deadline_s)

    async def _ask_version(self, audio: Samples, request: Request, lane: Lane, deadline_s: float) -> Transcript:
        version = await self._versions.version_of(request.session_id, deadline_s)
        # Count the outcome here: Triton itself counts a decoupled model's errors as answers.
        try:
            transcript = await self._stream(audio, request.options(lane), version, deadline_s)
        except TritonError as error:
            metrics.ANSWERS.labels(version, error.outcome).inc()
            raise
        metrics.ANSWERS.labels(version, "answered").inc()
        return transcript

    async def _stream(
        self, audio: Samples, options: Mapping[str, object], version: str, deadline_s: float
    ) -> Transcript:
        audio_input = triton.InferInput("audio", [1, len(audio)], "INT16")
        audio_input.set_data_from_numpy(audio.reshape(1, -1))
        options_input = triton.InferInput("options", [1, 1], "BYTES")
        options_input.set_data_from_numpy(np.array([[json.dumps(options).encode()]], dtype=np.object_))

        async def inputs() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": self._model, "model_version": version, "inputs": [audio_input, options_input]}

        headers = {"triton_grpc_error": "true"}  # errors come as the status of the stream
        traceparent = current_traceparent()
        if traceparent is not None:
            headers["traceparent"] = traceparent
        transcript: Transcript | None = None
        try:
            # One stream per request: the model is decoupled and batches by itself, and Triton's unary calls cannot
            # reach such a model.
            async for result, error in self._client.stream_infer(inputs(), stream_timeout=deadline_s, headers=headers):
                if error is not None:
                    raise TritonError(str(error), is_retriable=True)
                # Keep reading to the end of the stream. Leaving early cancels the request, and Triton may leak
                # the memory of a cancelled request.
                transcript = Transcript.model_validate_json(bytes(result.as_numpy("result").reshape(-1)[0]))
        except grpc.aio.AioRpcError as error:
            raise TritonError(error.details() or str(error), is_retriable=error.code() not in _PERMANENT) from error
        except ValidationError as error:
            # Neither the message nor the cause may show the answer itself: it holds spoken text.
            wrong = [each["loc"] for each in error.errors(include_url=False, include_input=False)]
            raise TritonError(f"no usable answer: {wrong} cannot be read", is_retriable=True) from None
        except (InferenceServerException, IndexError, AttributeError) as error:
            raise TritonError(f"no usable answer: {error!r}", is_retriable=True) from error
        if transcript is None:
            raise TritonError("no answer before the end of the stream", is_retriable=True)
        return transcript
