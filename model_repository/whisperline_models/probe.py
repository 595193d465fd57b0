"""Tell whether the Triton of this container serves: `python -m whisperline_models.probe` exits with 0, or 1 and a line.

Triton is ready when both models are ready and the process of each version lives. The second is checked here because
Triton goes on calling a version ready after its process has died, and does not start it again.

`--live` asks for less: the server answers, and no version that it calls ready has lost its process. A server that is
still loading is live. The probe runs often, so it imports the standard library alone.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

MODELS = ("whisper", "whisper_rollout")
PORT = 8000
TIMEOUT_S = 3.0
STUB = b"triton_python_backend_stub"  # the program of a version's process


def problem(*, live_only: bool, port: int = PORT, processes: Path = Path("/proc")) -> str | None:
    """Return what is wrong, None if nothing is. Raises `OSError` if the server does not answer."""
    if _ask(port, "GET", "/v2/health/live")[0] != 200:
        return "the server is not live"
    if not live_only:
        unready = [model for model in MODELS if _ask(port, "GET", f"/v2/models/{model}/ready")[0] != 200]
        if unready:
            return f"not ready: {', '.join(unready)}"
    # Triton reports a version whose process has died as READY, so the processes are looked at, too
    index = json.loads(_ask(port, "POST", "/v2/repository/index")[1])
    ready = {(entry["name"], entry["version"]) for entry in index if entry.get("state") == "READY"}
    dead = ready - running_versions(processes)
    if dead:
        return "the process has ended of: " + ", ".join(f"{model} {version}" for model, version in sorted(dead))
    return None


def running_versions(processes: Path) -> set[tuple[str, str]]:
    """Return model and version of every process that Triton has started for one, read from a folder such as /proc."""
    found = set()
    for command in processes.glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")  # empty for a process that has ended and is not yet waited for
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
    """Exit with status 1 and a line that says what is wrong, or with 0."""
    try:
        found = problem(live_only="--live" in sys.argv[1:])
    except OSError as error:
        found = f"the server does not answer: {error}"
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
