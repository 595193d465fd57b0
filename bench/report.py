"""Write tables of results with the date, machine and versions that a reader needs to judge them."""

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnxruntime", "numpy", "tritonclient")
THREADS = len(os.sched_getaffinity(0))
console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line of progress with the time."""
    console.print(f"{datetime.now(UTC):%H:%M:%S}  {text}", markup=False)


def heading(title: str, command: str, *notes: str) -> list[str]:
    """Return the lines at the top of a report: title, date, command, machine, versions, and notes."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{processor()}, {THREADS} cores, Python {platform.python_version()}, {versions}"
    return [f"# {title}", "", f"{datetime.now(UTC):%Y-%m-%d}, `{command}`, {machine}.", *notes, ""]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table, and the empty line after it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines), ""]


def write(name: str, lines: Sequence[str]) -> None:
    """Print a report and keep it as bench/results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    text = "\n".join(lines).rstrip() + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    console.print(text, markup=False)


def spread(values_s: Sequence[float]) -> str:
    """Return the median and the 95th percentile, in ms."""
    return f"{milliseconds(statistics.median(values_s))} | {milliseconds(percentile(values_s, 95))}"


def percentile(values: Sequence[float], per_cent: int) -> float:
    """Return a percentile, interpolated between its neighbours."""
    return statistics.quantiles(values, n=100, method="inclusive")[per_cent - 1]


def milliseconds(value_s: float) -> str:
    """Return seconds as whole milliseconds."""
    return f"{value_s * 1000:.0f}"


def processor() -> str:
    """Return the CPU's name as the system reports it."""
    rows = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return next((value.strip() for key, _, value in rows if key.strip() == "model name"), platform.machine())


def name_of(checkout: Path) -> str:
    """Return the commit of a checkout, with a plus sign if files have been changed since."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def verdict(value: float, *, least: float | None = None, most: float | None = None) -> str:
    """Return a figure with its target, and "held" or "MISSED"."""
    target = f"target {least:g} or more" if least is not None else f"target {most:g} or less"
    held = value >= least if least is not None else most is not None and value <= most
    return f"{value:.2f} ({target}: {'held' if held else 'MISSED'})"
