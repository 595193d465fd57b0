"""Run processes that write to a log file and cannot outlive this one."""

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

ReportStep = Callable[[str], None]  # called with a description of a preparation's current step


def ignore_step(_step: str) -> None:
    """Do nothing: the `ReportStep` of callers that show no progress."""


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
            start_new_session=True,  # Ctrl-C in the terminal reaches only the supervisor, which stops services in order
        )


async def terminate(process: asyncio.subprocess.Process, how: signal.Signals, limit_s: float) -> bool:
    """Signal a process to stop, kill it after `limit_s`, and kill the rest of its group.

    Returns True if it stopped by itself.
    """
    obeyed = True
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it may die at this moment
            process.send_signal(how)
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            obeyed = False
    await destroy_group(process)
    return obeyed


async def destroy_group(process: asyncio.subprocess.Process) -> None:
    """Kill the remaining processes of a process's group, itself included, and wait until they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    deadline = time.monotonic() + GROUP_GONE_LIMIT_S
    while group_lives(process.pid) and time.monotonic() < deadline:  # noqa: ASYNC110 - not our children: no event
        await asyncio.sleep(POLL_S)


def group_lives(group: int) -> bool:
    """Return True if a process of this group runs, as far as this user can see."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Dead orphans stay in the group until the system's first process has reaped them, so look for living members.
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


async def run_tool(
    step: str,
    command: Sequence[str],
    log: Path,
    report_step: ReportStep,
    *,
    hint: str = "",
    user_id: int | None = None,
    cwd: Path | None = None,
) -> None:
    """Report the step and run its command to the end. Raises `StepFailed` if it does not exit with 0."""
    report_step(step)
    process = await spawn(command, log, user_id=user_id, cwd=cwd)
    try:
        code = await process.wait()
    finally:
        await destroy_group(process)
    if code != 0:
        raise StepFailed(step, f"{Path(command[0]).name} exited with {code}", hint=hint, log=log)
