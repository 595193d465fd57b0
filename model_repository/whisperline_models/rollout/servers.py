"""Triton servers as a rollout sees them: load, look, and ask one version for an answer."""

from __future__ import annotations

import json
import queue
import socket
import time
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from whisperline_models.errors import ServerError
from whisperline_models.rollout.repository import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

LOAD_LIMIT_S = 600.0  # of a large model, with its warm-up
ANSWER_LIMIT_S = 60.0
UNLOAD_LIMIT_S = 90.0  # longer than any request may take
POLL_S = 0.2
_FAILURES = (InferenceServerException, grpc.RpcError)


class Server:
    """One Triton server by its gRPC address, "host:port". Every method raises `ServerError`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = triton.InferenceServerClient(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def load(self, model: str) -> None:
        """Load a model, or bring it in line with its folder: new versions come, missing ones go when they are idle."""
        try:
            self._client.load_model(model, client_timeout=LOAD_LIMIT_S)
        except _FAILURES as error:
            raise ServerError(f"{self.address} cannot load {model}: {_said(error)}") from error

    def loaded(self, model: str = MODEL) -> list[int]:
        """The versions of a model that are ready, ascending."""
        return sorted(number for number, state in self._states(model).items() if state == "READY")

    def wait_unloaded(self, number: int) -> bool:
        """Wait until a version has answered what it had taken and its process has ended; False where it has not."""
        deadline_s = time.monotonic() + UNLOAD_LIMIT_S
        while self._states(MODEL).get(number, "UNAVAILABLE") != "UNAVAILABLE":
            if time.monotonic() > deadline_s:
                return False
            time.sleep(POLL_S)
        return True

    def check(self, number: int) -> float:
        """Have a version transcribe a second of silence; returns the seconds that it took.

        Raises `ServerError` also where another version answers.
        """
        began_s = time.monotonic()
        answer = self._ask(number)
        if str(answer.get("version")) != str(number):
            raise ServerError(f"{self.address}: version {number} was asked, {answer.get('version')} answered")
        return time.monotonic() - began_s

    def _states(self, model: str) -> dict[int, str]:
        try:
            index = self._client.get_model_repository_index(client_timeout=ANSWER_LIMIT_S)
        except _FAILURES as error:
            raise ServerError(f"{self.address} does not answer: {_said(error)}") from error
        return {int(entry.version): entry.state for entry in index.models if entry.name == model and entry.version}

    def _ask(self, number: int) -> dict[str, Any]:
        try:
            config = self._client.get_model_config(MODEL, str(number), client_timeout=ANSWER_LIMIT_S).config
            ask = self._stream if config.model_transaction_policy.decoupled else self._infer
            fields: dict[str, Any] = json.loads(ask(number).as_numpy("result").reshape(-1)[0])
        except _FAILURES as error:
            raise ServerError(f"{self.address}: version {number} does not answer: {_said(error)}") from error
        return fields

    def _infer(self, number: int) -> triton.InferResult:
        return self._client.infer(MODEL, _silence(), model_version=str(number), client_timeout=ANSWER_LIMIT_S)

    def _stream(self, number: int) -> triton.InferResult:
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: answers.put((result, error)), stream_timeout=ANSWER_LIMIT_S)
        try:
            self._client.async_stream_infer(MODEL, _silence(), model_version=str(number))
            result, error = answers.get(timeout=ANSWER_LIMIT_S)
        except queue.Empty:
            raise ServerError(f"{self.address}: no answer in {ANSWER_LIMIT_S:.0f} s") from None
        finally:
            self._client.stop_stream()  # not cancelled: this server then may keep the version from ever ending
        if error is not None:
            raise error
        return result


def resolve(addresses: Iterable[str]) -> list[str]:
    """Each "host:port" as "ip:port" of every machine behind the name, without doubles. Raises `ServerError`."""
    return list(dict.fromkeys(found for address in addresses for found in _resolve(address)))


def _resolve(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ServerError(f"{address!r} is no address of Triton's gRPC, such as triton:8001")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerError(f"{address}: {error.strerror or error}") from error
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in sorted({str(entry[4][0]) for entry in found})]


def _silence() -> list[triton.InferInput]:
    audio = triton.InferInput("audio", [1, 16_000], "INT16")
    audio.set_data_from_numpy(np.zeros((1, 16_000), np.int16))
    options = triton.InferInput("options", [1, 1], "BYTES")
    options.set_data_from_numpy(np.array([[b"{}"]], np.object_))
    return [audio, options]


def _said(error: Exception) -> str:
    text = error.message() if isinstance(error, InferenceServerException) else str(error)
    return " ".join((text or repr(error)).split())
