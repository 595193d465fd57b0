"""What can go wrong on the way up, told so that the reader knows what to do next."""

from collections import deque
from pathlib import Path

LOG_TAIL_LINES = 15


class LocalError(Exception):
    """The embedded stack cannot go on; the message says why and what to do."""


class PortTaken(LocalError):
    """A port that the stack needs is in use."""


class AlreadyRunning(LocalError):
    """Another supervisor owns this state folder."""


class StepFailed(LocalError):
    """A step of the start failed: `step` names it, `log` is the file that tells more (None: there is none)."""

    def __init__(self, step: str, reason: str, *, hint: str = "", log: Path | None = None) -> None:
        self.step = step
        self.reason = reason
        self.hint = hint
        self.log = log
        super().__init__(_describe(step, reason, hint, log))


def _describe(step: str, reason: str, hint: str, log: Path | None) -> str:
    parts = [f"{step}: {reason}"]
    if log is not None:
        parts += [f"The last lines of {log}:", *(f"    {line}" for line in tail(log))]
    if hint:
        parts.append(hint)
    return "\n".join(parts)


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """Return the last `lines` lines of a log file, none when there is no such file."""
    if not log.is_file():
        return []
    with log.open(errors="replace") as file:
        return [line.rstrip() for line in deque(file, maxlen=lines)]
