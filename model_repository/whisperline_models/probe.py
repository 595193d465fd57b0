"""Check the Triton server of this container: `python -m whisperline_models.probe` exits with 0, or prints why not.

A server is ready when both models are ready and the process of each version is alive. The probe looks at the processes
itself, because Triton still reports a version as ready after its process has died, and does not restart it.

`--live` checks less: the server answers, and no version that it reports as ready has lost its process. A server that is
still loading is live. The probe runs often, so it imports only the standard library.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

MODELS = ("whisper", "whisper_rollout")
PORT = 8000
TIMEOUT_S = 3.0
STUB = b"triton_python_backend_stub"  # the program that Triton starts for each version


def problem(*, live_only: bool, port: int = PORT, processes: Path = Path("/proc")) -> str | None:
    """Return a description of the first problem, None if there is none. Raises `OSError` if the server is silent."""
    if _ask(port, "GET", "/v2/health/live")[0] != 200:
        return "the server is not live"
    if not live_only:
        unready = [model for model in MODELS if _ask(port, "GET", f"/v2/models/{model}/ready")[0] != 200]
        if unready:
            return f"not ready: {', '.join(unready)}"
    # Triton reports a version as READY even after its process has died, so compare with the running processes.
    index = json.loads(_ask(port, "POST", "/v2/repository/index")[1])
    ready = {(entry["name"], entry["version"]) for entry in index if entry.get("state") == "READY"}
    dead = ready - running_versions(processes)
    if dead:
        return "the process has ended of: " + ", ".join(f"{model} {version}" for model, version in sorted(dead))
    return None


def running_versions(processes: Path) -> set[tuple[str, str]]:
    """Return model and version of every process that Triton runs for one. `processes` is a folder such as /proc."""
    found = set()
    for command in processes.glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")  # empty for a zombie process
        except OSError:
            continue
        if words[0].endswith(STUB) and len(words) > 1:
            # the first argument is <repository>/<model>/<version>/model.py
            model, version = Path(words[1].decode()).parts[-3:-1]
            found.add((model, version))
    return found


def _ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def main() -> None:
    """Exit with 0, or with 1 and a line that describes the problem."""
    try:
        found = problem(live_only="--live" in sys.argv[1:])
    except OSError as error:
        found = f"the server does not answer: {error}"
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
