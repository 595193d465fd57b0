"""Processes that write to a log file and cannot outlive this one."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from whisperline_local import child
from whisperline_local.errors import StepFailed

GROUP_GONE_LIMIT_S = 5.0
POLL_S = 0.05

Tell = Callable[[str], None]  # takes what a preparation is doing now


def tell_nobody(_step: str) -> None:
    """Keep it quiet."""


async def spawn(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user_id: int | None = None,
    orphan_signal: signal.Signals = signal.SIGKILL,
    cwd: Path | None = None,
) -> asyncio.subprocess.Process:
    """Start `command` in a process group of its own; its output is appended to `log`.

    `env` is added to this process's environment. The command gets `orphan_signal` when this process dies.
    """
    uid = child.KEEP_USER if user_id is None else user_id
    tied = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(int(orphan_signal)), str(uid))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *tied,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C in the terminal goes to the supervisor alone, which stops in order
        )


async def terminate(process: asyncio.subprocess.Process, how: signal.Signals, limit_s: float) -> bool:
    """Ask a process to stop, kill it when `limit_s` have passed, and leave nothing of its group; True: it obeyed."""
    obeyed = True
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            await asyncio.wait_for(process.wait(), limit_s)
        except TimeoutError:
            obeyed = False
    await destroy_group(process)
    return obeyed


async def destroy_group(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of a process and of those it started in its group, and wait until they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    deadline = time.monotonic() + GROUP_GONE_LIMIT_S
    while _group_lives(process.pid) and time.monotonic() < deadline:  # noqa: ASYNC110 - not our children: no event
        await asyncio.sleep(POLL_S)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Orphans that are dead stay in the group until the system's first process has taken note of them.
    return any(_is_alive_in(group, pid) for pid in psutil.pids())


def _is_alive_in(group: int, pid: int) -> bool:
    try:
        return os.getpgid(pid) == group and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


async def run_tool(
    step: str,
    command: Sequence[str],
    log: Path,
    tell: Tell,
    *,
    hint: str = "",
    user_id: int | None = None,
    cwd: Path | None = None,
) -> None:
    """Tell the step and run its command to the end; raises `StepFailed` when it does not exit with 0."""
    tell(step)
    process = await spawn(command, log, user_id=user_id, cwd=cwd)
    try:
        code = await process.wait()
    finally:
        await destroy_group(process)
    if code != 0:
        raise StepFailed(step, f"{Path(command[0]).name} exited with {code}", hint=hint, log=log)
