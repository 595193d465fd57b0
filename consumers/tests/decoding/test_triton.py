"""Requests to Triton: each session's model version, which errors may be retried, and the metrics."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as tritonclient
from prometheus_client import REGISTRY
from tritonclient.grpc.service_pb2 import ModelConfigResponse
from whisperline_transcriber.decoding.triton import Lane, Request, Triton
from whisperline_transcriber.decoding.versions import VersionCache
from whisperline_transcriber.errors import RoutingError, TritonError

REQUEST = Request("a")
SILENCE = np.zeros(1600, np.int16)
TRANSCRIPT = {"text": "so", "language": "en", "words": [], "avg_logprob": 0, "model": "whisper", "version": "41"}


class Result:
    """One output of a model."""

    def __init__(self, value: object) -> None:
        self._value = value

    def as_numpy(self, _: str) -> Any:
        return np.array([[self._value]], np.object_)


class Client:
    """A stand-in for Triton's client: version 41 serves every session and gives the answers in turn."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked_for_versions = 0
        self.routing_error: Exception | None = None
        self.headers: dict[str, str] = {}
        self.config = ModelConfigResponse()
        self.asked_for_config = 0

    async def get_model_config(self, *_: Any, **__: Any) -> ModelConfigResponse:
        self.asked_for_config += 1
        return self.config

    async def infer(self, *_: Any, **__: Any) -> Result:
        self.asked_for_versions += 1
        if self.routing_error is not None:
            raise self.routing_error
        return Result(41)

    async def stream_infer(self, _: Any, *, headers: dict[str, str], **__: Any) -> AsyncIterator[Any]:
        self.headers = headers
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield Result(answer), None

    @property
    def typed(self) -> tritonclient.InferenceServerClient:
        return cast("tritonclient.InferenceServerClient", self)


def failure(code: grpc.StatusCode, details: str) -> Exception:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def triton_with(client: Client) -> Triton:
    return Triton("127.0.0.1:1", "whisper", 60, client=client.typed)


@pytest.mark.parametrize(
    ("code", "details", "outcome", "times"),
    [
        (grpc.StatusCode.UNAVAILABLE, "the stub has died", "failed", 1),
        (grpc.StatusCode.INVALID_ARGUMENT, "an option that it does not know", "refused", 1),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'whisper' version 41", "gone", 2),
    ],
)
async def test_the_outcome_of_a_request_is_counted_by_version(
    code: grpc.StatusCode, details: str, outcome: str, times: int
) -> None:
    """Each attempt is counted with its outcome, for the version to which it was sent."""
    labels = {"version": "41", "outcome": outcome}
    before = REGISTRY.get_sample_value("whisperline_transcriber_answers_total", labels) or 0
    with pytest.raises(TritonError):
        await triton_with(Client(*[failure(code, details)] * times)).transcribe(SILENCE, REQUEST, Lane.FINAL, 1)
    assert REGISTRY.get_sample_value("whisperline_transcriber_answers_total", labels) == before + times


def test_a_request_has_the_options_that_were_given() -> None:
    """A partial has rough words and options with their default are not sent."""
    request = Request("a", "de", prompt="Guten Tag.", prefix="Ich", prefix_ms=800, hotwords=("Weber", "Köln"))
    given = {"language": "de", "prompt": "Guten Tag.", "prefix": "Ich", "prefix_ms": 800, "hotwords": ["Weber", "Köln"]}
    assert request.options(Lane.PARTIAL) == given | {"words": "rough", "lane": "partial"}
    assert Request("a", None, ("de", "fr")).options(Lane.FILE) == {
        "language": None,
        "languages": ["de", "fr"],
        "words": True,
        "lane": "file",
    }


async def test_the_languages_are_those_of_the_sessions_version() -> None:
    """They are read once for each version; a repository of an older release says nothing."""
    client = Client()
    triton = triton_with(client)
    client.config.config.parameters["languages.41"].string_value = "de,en"
    client.config.config.parameters["languages.40"].string_value = "en"
    assert [await triton.languages(session) for session in "ab"] == [frozenset({"de", "en"})] * 2
    assert client.asked_for_config == 1
    assert await triton_with(Client()).languages("a") is None


async def test_a_version_that_is_gone_is_looked_up_again() -> None:
    """If a version was unloaded after it was looked up, the version that replaced it answers."""
    gone = failure(grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'whisper' version 41")
    client = Client(gone, json.dumps(TRANSCRIPT).encode())
    assert (await triton_with(client).transcribe(SILENCE, REQUEST, Lane.FINAL, 1)).text == "so"
    assert client.asked_for_versions == 2


async def test_an_answer_that_cannot_be_read_is_not_shown() -> None:
    """The error does not quote an unreadable answer, which may hold spoken text: errors go into logs and traces."""
    answer = json.dumps(TRANSCRIPT | {"text": ["a secret"]}).encode()
    with pytest.raises(TritonError, match="no usable answer") as error:
        await triton_with(Client(answer)).transcribe(SILENCE, REQUEST, Lane.FINAL, 1)
    assert error.value.is_retriable
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


async def test_an_answer_that_does_not_come_can_be_asked_for_again() -> None:
    """A stream that ends without a transcript raises a retriable error."""

    class Silent(Client):
        async def stream_infer(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            nothing: tuple[Any, ...] = ()
            for each in nothing:
                yield each

    with pytest.raises(TritonError, match="no answer") as error:
        await triton_with(Silent()).transcribe(SILENCE, REQUEST, Lane.FINAL, 1)
    assert error.value.is_retriable


async def test_a_version_is_kept_for_a_while() -> None:
    """A session's version is looked up once, and again only after it was forgotten."""
    client = Client()
    versions = VersionCache(client.typed, keep_s=60)
    assert [await versions.version_of(session, 1) for session in "aab"] == ["41"] * 3
    assert client.asked_for_versions == 2
    versions.forget("a")
    await versions.version_of("a", 1)
    assert client.asked_for_versions == 3


async def test_a_version_that_is_old_is_asked_for_again() -> None:
    """An expired version is looked up again, because the rollout may have moved the session."""
    client = Client()
    versions = VersionCache(client.typed, keep_s=0)
    for _ in range(2):
        await versions.version_of("a", 1)
    assert client.asked_for_versions == 2


async def test_a_session_without_a_version_can_be_asked_for_again() -> None:
    """A failed lookup raises a retriable error that names the model that Triton must serve."""
    client = Client()
    client.routing_error = failure(grpc.StatusCode.UNAVAILABLE, "away")
    with pytest.raises(RoutingError, match="--load-model=whisper_rollout") as error:
        await triton_with(client).transcribe(SILENCE, REQUEST, Lane.FINAL, 1)
    assert error.value.is_retriable
