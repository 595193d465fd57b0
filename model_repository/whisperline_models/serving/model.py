"""Triton's Python backend, which runs the engine in the folder beside this file.

The model is decoupled: `execute` returns at once, and each answer is sent when it is ready, so that new requests can
join a running batch. `config.pbtxt` has the interface. An error in one request does not affect the others.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only

sys.path.insert(0, str(Path(__file__).parent))  # import this version's own engine, not that of an installed package

from engine.errors import (  # type: ignore[import-not-found]
    OverloadedError,
    RequestCancelledError,
    RequestError,
)
from engine.requests import Request  # type: ignore[import-not-found]
from engine.settings import ServingSettings  # type: ignore[import-not-found]
from engine.timeline import Timeline  # type: ignore[import-not-found]
from engine.transcription import Engine  # type: ignore[import-not-found]
from engine.worker import Worker  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from whisperline_models.serving.tracing import RequestSpan, Tracing

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]  # buckets of durations
ROWS = [1.0, 2, 4, 8, 12, 16, 24, 32, 64]  # buckets of batch sizes
CODES = {RequestError: "INVALID_ARG", OverloadedError: "UNAVAILABLE", RequestCancelledError: "CANCELLED"}
TRACES_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TritonPythonModel:
    """One model instance: an engine, and the threads that run it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version that Triton names in `args`."""
        settings = ServingSettings.from_triton(args)
        version = args["model_version"]
        self._tracing = open_tracing(version)
        engine = Engine(
            Path(__file__).parent,
            version=version,
            max_batch=settings.slots,
            threads=settings.threads,
            gpu=int(args["model_instance_device_id"]),
            beam_sizes=settings.beam_sizes,
            observer=Metrics(version, args["model_instance_name"]),
        )
        self._languages = engine.tokenizer.languages
        threading.excepthook = end_process
        self._worker = Worker(engine, settings.max_requests)

    def execute(self, requests: list[Any]) -> None:
        """Queue requests. Each gets one answer, in any order."""
        for request in requests:
            sender = request.get_response_sender()
            span = self._tracing.begin(request.parameters()) if self._tracing else None
            timeline = Timeline(span.context) if span else None
            finish = partial(answer, sender, span, timeline)
            try:
                names = ("audio", "options")
                audio, options = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
                if audio.shape[0] != 1:
                    raise RequestError(f"a request carries one row, this one {audio.shape[0]}: send them apart")
                parsed = Request.parse(audio[0], options[0, 0], self._languages)
                if span:
                    span.describe(parsed)
                self._worker.submit(parsed, finish, sender.is_cancelled, timeline)
            except Exception as error:  # of any kind: it must end this request only
                finish(error)

    def finalize(self) -> None:
        """Answer the queued requests, then stop."""
        self._worker.close()
        if self._tracing:
            self._tracing.close()


def open_tracing(version: str) -> Tracing | None:
    """Return the tracing of requests, or None, without loading OpenTelemetry, if the environment names no endpoint."""
    if not any(os.environ.get(name) for name in TRACES_ENDPOINTS):
        return None
    try:
        import tracing  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError as error:
        pb_utils.Logger.log_error(f"there will be no traces: {error}")
        return None
    opened: Tracing = tracing.Tracing(tracing.provider_from_environment(version), version)
    return opened


def answer(sender: Any, span: RequestSpan | None, timeline: Any, outcome: Any) -> None:
    """Send a result, or an error with the code for its kind, and end the request's span."""
    if isinstance(outcome, Exception):
        code = getattr(pb_utils.TritonError, CODES.get(type(outcome), "INTERNAL"))
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(outcome), code))
    else:
        output = np.array([[outcome.to_json().encode()]], dtype=np.object_)
        response = pb_utils.InferenceResponse([pb_utils.Tensor("result", output)])
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    if span:
        span.end(outcome, timeline)


def end_process(args: threading.ExceptHookArgs) -> None:
    """End the process after a thread of the engine has died: some requests would never be answered."""
    threading.__excepthook__(args)
    os._exit(1)


class Metrics:
    """The engine's observer, which records its work in Triton's own `/metrics`."""

    def __init__(self, version: str, instance: str) -> None:
        self._labels = {"version": version, "model_instance": instance}
        self._counts: dict[tuple[str, str], int] = {}
        kinds = pb_utils.MetricFamily
        self._families = {
            name: kinds(name=f"whisper_{name}", description=description, kind=kind)
            for name, description, kind in (
                ("queue_seconds", "From a request's arrival to its first unit of work", kinds.HISTOGRAM),
                ("unit_seconds", "Duration of a unit: encode (a piece), decode (one step), align", kinds.HISTOGRAM),
                ("batch_rows", "Rows in a unit of work", kinds.HISTOGRAM),
                ("requests", "Requests by state, waiting or active", kinds.GAUGE),
            )
        }
        self._metrics: dict[tuple[str, ...], Any] = {}

    def started(self, lane: str, waited_s: float) -> None:
        """Record the time that a request waited in the queue."""
        self.metric("queue_seconds", SECONDS, lane=lane).observe(waited_s)

    def worked(self, stage: str, n_rows: int, took_s: float) -> None:
        """Record a finished unit of work."""
        self.metric("unit_seconds", SECONDS, stage=stage).observe(took_s)
        self.metric("batch_rows", ROWS, stage=stage).observe(n_rows)

    def counted(self, lane: str, waiting: int, active: int) -> None:
        """Record how many requests of a lane are waiting, and how many are active."""
        for state, count in (("waiting", waiting), ("active", active)):
            if self._counts.get((lane, state)) != count:  # each call to a metric is a round trip to the server
                self._counts[lane, state] = count
                self.metric("requests", lane=lane, state=state).set(count)

    def metric(self, name: str, buckets: list[float] | None = None, **labels: str) -> Any:
        """Return the metric of a family with these labels, and create it on first use."""
        key = (name, *labels.values())
        if key not in self._metrics:
            options = {} if buckets is None else {"buckets": buckets}
            self._metrics[key] = self._families[name].Metric(labels=labels | self._labels, **options)
        return self._metrics[key]
