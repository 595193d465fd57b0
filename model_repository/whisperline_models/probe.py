"""Tells whether this container's Triton serves: `python -m whisperline_models.probe`, exit status 0 or 1 and a line.

Ready: both models are, and the process of each version that is served lives. The server itself goes on to call a
version ready whose process has died, and does not start it anew. `--live` asks for less: the server answers, and none
of the versions that it calls ready has lost its process; so a server that still loads is live.
Only the standard library is imported: it runs often.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

MODELS = ("whisper", "whisper_rollout")
PORT = 8000
TIMEOUT_S = 3.0
STUB = b"triton_python_backend_stub"

Version = tuple[str, str]  # the model's name, the version's number


def problem(*, live_only: bool, port: int = PORT, processes: Path = Path("/proc")) -> str | None:
    """Say what is wrong; None where nothing is. Raises `OSError` where the server does not answer."""
    if _ask(port, "GET", "/v2/health/live")[0] != 200:
        return "the server is not live"
    if not live_only:
        unready = [model for model in MODELS if _ask(port, "GET", f"/v2/models/{model}/ready")[0] != 200]
        if unready:
            return f"not ready: {', '.join(unready)}"
    dead = _served(port) - _running(processes)
    if dead:
        return "the process has ended of: " + ", ".join(f"{model} {version}" for model, version in sorted(dead))
    return None


def _served(port: int) -> set[Version]:
    """The versions that the server calls ready."""
    index = json.loads(_ask(port, "POST", "/v2/repository/index")[1])
    return {(entry["name"], entry["version"]) for entry in index if entry.get("state") == "READY"}


def _running(processes: Path) -> set[Version]:
    """The versions that a process serves: its first argument is <repository>/<model>/<version>/model.py."""
    found = set()
    for command in processes.glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")  # empty where the process has ended and is not yet waited for
        except OSError:
            continue
        if words[0].endswith(STUB) and len(words) > 1:
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
    """Exit with 1, and say why, where something is wrong."""
    try:
        found = problem(live_only="--live" in sys.argv[1:])
    except OSError as error:
        found = f"the server does not answer: {error}"
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
