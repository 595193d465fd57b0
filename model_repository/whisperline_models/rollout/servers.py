"""A client for a Triton server during a rollout: load a model, list loaded versions, let one version transcribe."""

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

LOAD_LIMIT_S = 600.0  # enough for a large model with its warm-up
ANSWER_LIMIT_S = 60.0
UNLOAD_LIMIT_S = 90.0  # longer than any request may take
POLL_S = 0.2
_FAILURES = (InferenceServerException, grpc.RpcError)


class Server:
    """One Triton server at a gRPC address, "host:port". Every method raises `ServerError` if the server fails."""

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
        """Load a model, or update it from its folder: new versions load, and deleted ones stop once they are idle."""
        try:
            self._client.load_model(model, client_timeout=LOAD_LIMIT_S)
        except _FAILURES as error:
            raise ServerError(f"{self.address} cannot load {model}: {_message(error)}") from error

    def loaded(self) -> list[int]:
        """Return the numbers of Whisper's versions that are ready, ascending."""
        return sorted(number for number, state in self._states().items() if state == "READY")

    def wait_unloaded(self, number: int) -> bool:
        """Wait until a version has answered its requests and its process has ended. Return False if it does not end."""
        deadline_s = time.monotonic() + UNLOAD_LIMIT_S
        while self._states().get(number, "UNAVAILABLE") != "UNAVAILABLE":
            if time.monotonic() > deadline_s:
                return False
            time.sleep(POLL_S)
        return True

    def _states(self) -> dict[int, str]:
        try:
            index = self._client.get_model_repository_index(client_timeout=ANSWER_LIMIT_S)
        except _FAILURES as error:
            raise ServerError(f"{self.address} does not answer: {_message(error)}") from error
        return {int(entry.version): entry.state for entry in index.models if entry.name == MODEL and entry.version}

    def check(self, number: int) -> float:
        """Let a version transcribe a second of silence, and return the seconds that it took.

        Raises `ServerError` also if another version answers.
        """
        began_s = time.monotonic()
        try:
            config = self._client.get_model_config(MODEL, str(number), client_timeout=ANSWER_LIMIT_S).config
            audio = triton.InferInput("audio", [1, 16_000], "INT16")
            audio.set_data_from_numpy(np.zeros((1, 16_000), np.int16))
            options = triton.InferInput("options", [1, 1], "BYTES")
            options.set_data_from_numpy(np.array([[b"{}"]], np.object_))
            inputs, version = [audio, options], str(number)
            if config.model_transaction_policy.decoupled:
                result = self._infer_in_stream(inputs, version)
            else:  # versions of older exports
                result = self._client.infer(MODEL, inputs, model_version=version, client_timeout=ANSWER_LIMIT_S)
            answer = json.loads(result.as_numpy("result").reshape(-1)[0])
        except _FAILURES as error:
            raise ServerError(f"{self.address}: version {number} does not answer: {_message(error)}") from error
        if str(answer.get("version")) != str(number):
            raise ServerError(f"{self.address}: version {number} was asked, {answer.get('version')} answered")
        return time.monotonic() - began_s

    def _infer_in_stream(self, inputs: list[triton.InferInput], version: str) -> triton.InferResult:
        # the client calls back from another thread
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: answers.put((result, error)), stream_timeout=ANSWER_LIMIT_S)
        try:
            self._client.async_stream_infer(MODEL, inputs, model_version=version)
            result, error = answers.get(timeout=ANSWER_LIMIT_S)
        except queue.Empty:
            raise ServerError(f"{self.address}: no answer in {ANSWER_LIMIT_S:.0f} s") from None
        finally:
            # Do not cancel the request: after a cancelled one, Triton may never end the version's process.
            self._client.stop_stream()
        if error is not None:
            raise error
        return result


def resolve(addresses: Iterable[str]) -> list[str]:
    """Return the "ip:port" of every machine behind each "host:port", without duplicates. Raises `ServerError`."""
    resolved: list[str] = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ServerError(f"{address!r} is no address of Triton's gRPC, such as triton:8001")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise ServerError(f"{address}: {error.strerror or error}") from error
        # a headless service has one address per replica, and every replica must load the version
        for ip in sorted({str(entry[4][0]) for entry in found}):
            resolved.append(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")
    return list(dict.fromkeys(resolved))


def _message(error: Exception) -> str:
    text = error.message() if isinstance(error, InferenceServerException) else str(error)
    return " ".join((text or repr(error)).split())
