"""Which version of the model serves a session: Triton's model `whisper_rollout` knows, and may change its mind."""

import time

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

MODEL = "whisper_rollout"


class RoutingError(Exception):
    """Triton did not say which version serves a session."""


class Rollout:
    """Asks once for each session and holds the answer for `keep_s`; what is older is dropped as others come."""

    def __init__(self, client: triton.InferenceServerClient, keep_s: float) -> None:
        self._client = client
        self._keep_s = keep_s
        self._known: dict[str, tuple[float, str]] = {}  # session id: when it was asked for (the oldest first), version

    async def version(self, session_id: str, deadline_s: float) -> str:
        """Return the number of the version for a session. Raises `RoutingError`."""
        self._drop_old()
        if session_id in self._known:
            return self._known[session_id][1]
        try:
            result = await self._client.infer(MODEL, [_session(session_id)], client_timeout=deadline_s)
        except (InferenceServerException, grpc.RpcError) as error:
            hint = f"Triton must serve the repository's model {MODEL} (--load-model={MODEL})"
            raise RoutingError(f"which version serves the session is not known: {error}; {hint}") from error
        version = str(int(result.as_numpy("version").reshape(-1)[0]))
        self._known.pop(session_id, None)
        self._known[session_id] = time.monotonic(), version
        return version

    def forget(self, session_id: str) -> None:
        """Ask again for this session: Triton no longer has the version that it named."""
        self._known.pop(session_id, None)

    def _drop_old(self) -> None:
        oldest_s = time.monotonic() - self._keep_s
        while self._known and (first := next(iter(self._known.items())))[1][0] < oldest_s:
            del self._known[first[0]]


def _session(session_id: str) -> triton.InferInput:
    session = triton.InferInput("session", [1, 1], "BYTES")
    session.set_data_from_numpy(np.array([[session_id.encode()]], np.object_))
    return session
