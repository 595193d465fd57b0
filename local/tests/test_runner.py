"""One service kept running, with small real processes."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from whisperline_local.errors import StepFailed
from whisperline_local.process import ignore_step, run_tool, spawn, terminate
from whisperline_local.runner import Runner, State
from whisperline_local.service import Service

LIMIT_S = 20.0
FOREVER = ("sleep", "1000")


class Reports:
    """Records states, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[tuple[State, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, _name: str, state: State, detail: str) -> None:
        self.seen.append((state, detail))
        self._changed.set()

    async def until(self, state: State) -> None:
        async with asyncio.timeout(LIMIT_S):
            while state not in [seen for seen, _ in self.seen]:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def reports() -> Reports:
    return Reports()


class Runners:
    """Makes runners that are stopped at the end of the test."""

    def __init__(self, folder: Path, reports: Reports) -> None:
        self._folder = folder
        self._reports = reports
        self._made: list[Runner] = []

    def __call__(self, service: Service, *needs: Runner) -> Runner:
        log = self._folder / f"{service.name}.log"
        self._made.append(Runner(service, log, needs, self._reports))
        return self._made[-1]

    async def stop(self) -> None:
        for runner in reversed(self._made):
            await runner.stop()


@pytest_asyncio.fixture
async def make(tmp_path: Path, reports: Reports) -> AsyncIterator[Runners]:
    runners = Runners(tmp_path, reports)
    yield runners
    await runners.stop()


async def healthy(runner: Runner) -> int:
    async with asyncio.timeout(LIMIT_S):
        await runner.wait_healthy()
    assert runner.pid is not None
    return runner.pid


async def test_a_killed_process_is_restarted(make: Runners) -> None:
    """After SIGKILL another process takes its place, and the restart is counted."""
    runner = make(Service("sleeper", FOREVER))
    runner.launch()
    first = await healthy(runner)
    runner.kill()
    second = await healthy(runner)
    assert first != second
    assert runner.restarts == 1
    assert not psutil.pid_exists(first)


async def test_a_process_that_stays_unready_is_killed_and_restarted(make: Runners, reports: Reports) -> None:
    """A process that runs but does not answer any more is replaced."""
    sick: set[int] = set()

    async def ready(pid: int) -> bool:
        return pid not in sick

    runner = make(Service("sleeper", FOREVER, ready=ready, unready_limit_s=0.0))
    runner.launch()
    first = await healthy(runner)
    sick.add(first)
    await reports.until(State.RESTARTING)
    assert await healthy(runner) != first
    assert (State.UNREADY, "") in reports.seen


async def test_a_service_waits_for_what_it_needs(make: Runners) -> None:
    """A service does not start before the service that it needs is ready."""
    asked, answer = asyncio.Event(), False

    async def ready(_pid: int) -> bool:
        asked.set()
        return answer

    first = make(Service("first", FOREVER, ready=ready))
    second = make(Service("second", FOREVER, after=("first",)), first)
    second.launch()
    first.launch()
    await asyncio.wait_for(asked.wait(), LIMIT_S)
    assert second.pid is None
    answer = True
    await healthy(second)


async def test_a_first_start_that_fails_is_reported_with_its_log(make: Runners) -> None:
    """A failed first start raises an error with the step, the exit code, the end of the log and a hint."""
    runner = make(Service("broken", ("sh", "-c", "echo out of luck; exit 7"), ready=never, hint="Buy a clover."))
    runner.launch()
    with pytest.raises(StepFailed, match=r"(?s)broken: exited with 7.*out of luck.*Buy a clover"):
        await runner.until_failed()
    assert runner.state is State.FAILED


async def test_a_process_that_dies_in_on_ready_is_noticed_at_once(make: Runners) -> None:
    """A dead process ends the wait for its `on_ready`."""

    async def endless() -> None:
        runner.kill()
        await asyncio.Event().wait()

    runner = make(Service("fragile", FOREVER, on_ready=endless))
    runner.launch()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StepFailed, match="fragile: exited with -9"):
            await runner.wait_healthy()


async def test_a_process_that_does_not_become_ready_in_time_fails_to_start(make: Runners) -> None:
    """If a process does not become ready in time, the error names the time limit."""
    runner = make(Service("slow", FOREVER, ready=never, start_limit_s=0.1))
    runner.launch()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StepFailed, match="slow: not ready after"):
            await runner.wait_healthy()


async def test_a_preparation_that_fails_ends_the_wait_for_its_service(make: Runners) -> None:
    """`wait_healthy` raises the error of the preparation."""

    async def prepare(_report_step: object) -> None:
        raise StepFailed("digging", "hit a rock")

    runner = make(Service("deep", FOREVER, prepare=prepare))
    runner.launch()
    with pytest.raises(StepFailed, match="digging: hit a rock"):
        await runner.wait_healthy()
    assert runner.state is State.FAILED


async def test_waiting_for_a_service_that_is_stopped_ends(make: Runners) -> None:
    """`wait_healthy` fails when nothing supervises the service any more."""
    runner = make(Service("slow", FOREVER, ready=never))
    runner.launch()
    waiting = asyncio.create_task(runner.wait_healthy())
    await runner.stop()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StepFailed, match="ended before it was healthy"):
            await waiting


async def test_a_command_that_ends_well_is_done(make: Runners) -> None:
    """A service that runs once stays healthy for those that need it, and is not restarted."""
    runner = make(Service("once", ("true",), once=True))
    follower = make(Service("follower", FOREVER, after=("once",)), runner)
    runner.launch()
    follower.launch()
    await healthy(follower)
    follower.kill()
    await healthy(follower)
    assert runner.state is State.DONE
    assert runner.restarts == 0


async def test_a_process_that_ignores_its_signal_is_killed_at_the_deadline(tmp_path: Path) -> None:
    """Stopping takes no longer than its limit, and leaves no child of the process either."""
    log = tmp_path / "log"
    process = await spawn(("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"), log)
    while not log.read_text().endswith("\n"):  # noqa: ASYNC110 - a file sets no event
        await asyncio.sleep(0.01)
    assert not await terminate(process, signal.SIGTERM, 0.1)
    assert process.returncode == -signal.SIGKILL
    assert not lives(int(log.read_text()))


async def test_a_tool_that_fails_is_reported(tmp_path: Path) -> None:
    """If a tool fails, the error quotes its output."""
    with pytest.raises(StepFailed, match=r"(?s)digging: sh exited with 3.*hit a rock"):
        await run_tool("digging", ("sh", "-c", "echo hit a rock; exit 3"), tmp_path / "log", ignore_step)


async def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """If the supervisor is killed with SIGKILL, its children die, too."""
    program = (
        "import asyncio, pathlib, sys\n"
        "from whisperline_local.process import spawn\n"
        "async def main():\n"
        "    process = await spawn(('sleep', '1000'), pathlib.Path(sys.argv[1]))\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    child = psutil.Process(int(await supervisor.stdout.readline()))
    supervisor.kill()
    await supervisor.wait()
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [child], LIMIT_S)
    assert gone == [child]


async def never(_pid: int) -> bool:
    return False


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
