"""The errors of the embedded stack, each with a message that says what to do next.

LocalError
 ├── PortTaken        a port of the stack is in use
 ├── AlreadyRunning   another supervisor owns the state folder
 └── StepFailed       a download, a preparation or the start of a service failed
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_TAIL_LINES = 15


class LocalError(Exception):
    """The embedded stack cannot go on. The message says why, and what to do."""


class PortTaken(LocalError):
    """A port that the stack needs is in use."""


class AlreadyRunning(LocalError):
    """Another supervisor owns this state folder."""


class StepFailed(LocalError):
    """A step of the start failed. `step` is its name, and `log` the file with the details, or None."""

    def __init__(self, step: str, reason: str, *, hint: str = "", log: Path | None = None) -> None:
        self.step = step
        self.reason = reason
        self.hint = hint
        self.log = log
        lines = [f"{step}: {reason}"]
        if log is not None:
            lines += [f"The last lines of {log}:", *(f"    {line}" for line in tail(log))]
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """Return the last lines of a log file, or none if there is no such file."""
    if not log.is_file():
        return []
    with log.open(errors="replace") as file:
        return [line.rstrip() for line in deque(file, maxlen=lines)]


@contextmanager
def first_error_of_tasks() -> Iterator[None]:
    """Replace the exception group of an `asyncio.TaskGroup` by the error that came first.

    Callers of the stack expect a `LocalError`. The other errors of the group come from tasks that failed while the
    group was being cancelled, and would only hide the cause.
    """
    try:
        yield
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise first from first.__cause__
