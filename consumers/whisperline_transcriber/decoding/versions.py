"""Look up which version of the model serves a session: Triton's model `whisper_rollout` decides, and may change it."""

import time

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from whisperline_transcriber.errors import RoutingError

MODEL = "whisper_rollout"


class VersionCache:
    """A cache of the version that serves each session. An entry lives for `keep_s`; each lookup evicts expired ones."""

    def __init__(self, client: triton.InferenceServerClient, keep_s: float) -> None:
        self._client = client
        self._keep_s = keep_s
        # By session id, oldest first: the time of the lookup (monotonic) and the version.
        self._known: dict[str, tuple[float, str]] = {}

    async def version_of(self, session_id: str, deadline_s: float) -> str:
        """Return the number of the version that serves a session. Raises `RoutingError`."""
        oldest_s = time.monotonic() - self._keep_s
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest][0] >= oldest_s:
                break
            del self._known[oldest]
        if session_id in self._known:
            return self._known[session_id][1]

        session = triton.InferInput("session", [1, 1], "BYTES")
        session.set_data_from_numpy(np.array([[session_id.encode()]], np.object_))
        try:
            result = await self._client.infer(MODEL, [session], client_timeout=deadline_s)
        except (InferenceServerException, grpc.RpcError) as error:
            hint = f"Triton must serve the repository's model {MODEL} (--load-model={MODEL})"
            raise RoutingError(f"the version that serves the session is not known: {error}; {hint}") from error
        version = str(int(result.as_numpy("version").reshape(-1)[0]))
        self._known.pop(session_id, None)  # so that it moves to the end
        self._known[session_id] = time.monotonic(), version
        return version

    def forget(self, session_id: str) -> None:
        """Forget a session's version, because Triton no longer serves it; the next request looks it up again."""
        self._known.pop(session_id, None)
