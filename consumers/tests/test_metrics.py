"""What the transcriber's metrics tell of partitions and of versions of the model."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY
from whisperline_transcriber import metrics
from whisperline_transcriber.decoding.triton import Lane, Request, Triton, TritonError
from whisperline_transcriber.log.consumer import Transcriber
from whisperline_transcriber.settings import Settings

REQUEST = Request(session_id="a", lane=Lane.FINAL, language=None, words=False, deadline_s=1)
SILENCE = np.zeros(1600, np.int16)


async def test_the_lag_of_partitions_that_went_to_others_is_not_told_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lag that a former owner told for ever would keep an alert and the autoscaler busy."""
    monkeypatch.setattr("whisperline_transcriber.log.consumer.VoiceActivity", lambda *_: None)
    transcriber = Transcriber(Settings(vad_model=Path(__file__)), "test")
    metrics.LAG_AGE.labels("7").set(40)
    metrics.LAG.labels("7").set(12)
    await transcriber.on_partitions_revoked([])
    assert REGISTRY.get_sample_value("whisperline_transcriber_lag_seconds", {"partition": "7"}) is None
    assert REGISTRY.get_sample_value("whisperline_transcriber_lag_records", {"partition": "7"}) is None


class Client:
    """Triton's client, whose version 41 gives every request the same status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    async def infer(self, *_: Any, **__: Any) -> Any:
        class Result:
            def as_numpy(self, _: str) -> Any:
                return np.array([[41]])

        return Result()

    async def stream_infer(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise self._error
        yield


@pytest.mark.parametrize(
    ("code", "details", "outcome", "times"),
    [
        (grpc.StatusCode.UNAVAILABLE, "the stub has died", "failed", 1),
        (grpc.StatusCode.INVALID_ARGUMENT, "an option that it does not know", "refused", 1),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'whisper' version 41", "gone", 2),
    ],
)
async def test_what_comes_of_a_request_is_counted_by_version(
    code: grpc.StatusCode, details: str, outcome: str, times: int
) -> None:
    """Errors are counted for the version that was asked, each attempt by itself."""
    triton = Triton("127.0.0.1:1", "whisper", 2)
    triton._client, triton._rollout._client = (Client(code, details),) * 2  # type: ignore[assignment]
    labels = {"version": "41", "outcome": outcome}
    before = REGISTRY.get_sample_value("whisperline_transcriber_answers_total", labels) or 0
    with pytest.raises(TritonError):
        await triton.transcribe(SILENCE, REQUEST)
    assert REGISTRY.get_sample_value("whisperline_transcriber_answers_total", labels) == before + times
