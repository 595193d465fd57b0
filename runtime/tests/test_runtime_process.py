"""A process starts and stops with the right exit status, on signals, errors and deadlines."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from whisperline_runtime.process import Stop

PROGRAM = """
import asyncio, sys
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from whisperline_runtime.errors import FatalError, StartupError
from whisperline_runtime.process import Stop, run
from whisperline_runtime.settings import ProcessSettings

class Settings(ProcessSettings):
    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_EXAMPLE_")
    number: int = Field(default=1, ge=1)

async def main(settings: Settings, stop: Stop) -> None:
    print("started", flush=True)
{body}

sys.exit(run("example", Settings, main, stop_limit_s=lambda _: 0.2))
"""


@contextmanager
def program(body: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process whose main does `body`."""
    source = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WHISPERLINE_", "OTEL_"))}
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the process; return its exit status and its standard error."""
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0(number: signal.Signals) -> None:
    """A signal sets the stop, `main` returns, and the exit status is 0."""
    with program("await stop.wait()\nprint('finished', flush=True)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.stdout.readline() == "finished\n"
        assert ended(process)[0] == 0


def test_what_does_not_stop_in_time_is_cancelled_until_it_ends() -> None:
    """A `main` that swallows its first cancellation still ends, with status 0 and a line that says so."""
    body = """
    for _ in range(3):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    """
    with program(body) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        status, errors = ended(process)
    assert status == 0
    assert "not stopped within 0.2 s" in errors


@pytest.mark.parametrize("error", ["StartupError", "FatalError"])
def test_an_error_that_ends_it_is_one_line_and_status_1(error: str) -> None:
    """An error that ends the process is logged as one line without a traceback, with status 1."""
    with program(f"raise {error}('raise the number of partitions')") as process:
        status, errors = ended(process)
    assert status == 1
    assert "raise the number of partitions" in errors
    assert "Traceback" not in errors


def test_an_error_of_a_task_group_ends_it_as_well() -> None:
    """A process whose work is a task group does not unwrap it."""
    body = """
    async def fail():
        raise FatalError('deploy another release')
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        await stop.wait()
    """
    with program(body) as process:
        status, errors = ended(process)
    assert status == 1
    assert "deploy another release" in errors
    assert "Traceback" not in errors


def test_a_defect_beside_such_an_error_is_raised() -> None:
    """It must not hide behind the other."""
    with program("raise ExceptionGroup('both', [FatalError('stop'), ValueError('bug')])") as process:
        status, errors = ended(process)
    assert status == 1
    assert "ValueError: bug" in errors


def test_a_defect_is_raised_with_its_traceback() -> None:
    """Any other exception is a defect and shows its traceback."""
    with program("raise ValueError('bug')") as process:
        status, errors = ended(process)
    assert status == 1
    assert "Traceback" in errors


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("WHISPERLINE_EXAMPLE_NUMBER", "0", "WHISPERLINE_EXAMPLE_NUMBER: Input should be greater than or equal to 1\n"),
        ("WHISPERLINE_EXAMPLE_LOG_LEVEL", "LOUD", "WHISPERLINE_EXAMPLE_LOG_LEVEL: Input should be 'DEBUG', "),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL: http/json is not supported; use"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: zipkin is not supported; use otlp or none"),
    ],
)
def test_a_wrong_setting_is_named_with_status_2(name: str, value: str, line: str) -> None:
    """A wrong setting is named, and the process ends with status 2 before it starts."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if name.startswith("OTEL_") else {}
    with program("", **environment, **{name: value}) as process:
        status, errors = ended(process)
    assert status == 2
    assert errors.startswith(line)


async def test_a_stop_leaves_the_body_that_waits() -> None:
    """A stop leaves the waiting body, and execution goes on after the `async with`."""
    stop = Stop()
    asyncio.get_running_loop().call_soon(stop.set)
    async with stop.interrupts():
        await asyncio.sleep(3600)
    assert stop.is_set()


async def test_a_stop_that_was_set_before_leaves_the_body_at_once() -> None:
    """If the stop was set before, the body is left at once."""
    stop = Stop()
    stop.set()
    async with stop.interrupts():
        await asyncio.sleep(3600)
    assert stop.is_set()


async def test_a_time_out_of_the_body_is_its_own() -> None:
    """A timeout that the body raises is not swallowed."""
    with pytest.raises(TimeoutError):
        async with Stop().interrupts(), asyncio.timeout(0):
            await asyncio.sleep(3600)


async def test_a_body_that_ends_is_not_disturbed_by_a_later_stop() -> None:
    """A stop after the body has ended disturbs nothing."""
    stop = Stop()
    async with stop.interrupts():
        pass
    stop.set()
    await asyncio.sleep(0)
