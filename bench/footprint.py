"""Measure the cost of each process of the stack: time to start, memory, and CPU while eight people speak.

    make bench-footprint                          # this checkout, about 10 minutes
    make bench-footprint PEER=../other ROUNDS=5   # and another one in turn with it, about 20 minutes

Each round starts a checkout's own `whisperline-local` in its own environment, lets STREAMS clients speak for a while
to warm it up, then measures while they speak for a minute. Rounds alternate between the checkouts, so that a machine
that grows slower is slower for both. Only the state file of `whisperline-local`, /proc and the client protocol are
used: probe paths and metric names may differ between the checkouts. The table goes to bench/results/footprint.md.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from clips import CHECKOUT, SAMPLE_RATE, SPEECH_DIR, Pcm, recorded_clips
from report import heading, name_of, say, table, write
from whisperline_client import Client, Closed, Final, ListenOptions, pace
from whisperline_local import LocalSettings
from whisperline_local.assets import demo_speech

ROUNDS, STREAMS, WARM_UP_S, SPEECH_S = 5, 8, 20.0, 60.0
GAP_S = 0.9  # silence between two recordings, long enough to end a segment
SAMPLE_EVERY_S = 5.0  # between two samples of the memory; taking one costs some milliseconds of CPU time
POLL_S = 0.02
START_LIMIT_S, STOP_LIMIT_S = 180.0, 60.0
GATEWAY_PORT, PORT_OFFSET = 8080, 19_000  # see tests/stacks.py
STARTED = {"healthy", "done"}
ALL = "everything"
MEASURES = {"start": "start-up, s", "pss": "memory (PSS), MB", "rss": "memory (RSS), MB", "cpu": "CPU, % of one core"}
Figures = dict[tuple[str, str], float]  # by measure and process


@dataclass
class Checkout:
    """A working tree with its environment, and the figures of each round that was measured on it."""

    path: Path
    rounds: list[Figures] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The commit."""
        return name_of(self.path)

    @property
    def program(self) -> Path:
        """The command that starts this checkout's stack."""
        return self.path / ".venv" / "bin" / "whisperline-local"

    def prepare(self) -> None:
        """Fetch and export everything that the stack needs, so that no round includes that time."""
        subprocess.run([self.program, "prepare"], env=environment(self, None), check=True, capture_output=True)


@dataclass(frozen=True)
class Running:
    """A stack that has started: the process id of each service, and the seconds that each took to start."""

    pids: dict[str, int]
    started_s: dict[str, float]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of each part; Triton's model processes are parts of their own."""
        parts: dict[str, list[psutil.Process]] = {}
        for name, pid in self.pids.items():
            service = psutil.Process(pid)
            parts.setdefault(name, []).append(service)
            for child in service.children(recursive=True):
                # Triton gives a model's process the path of the model: .../models/whisper/1/model.py
                models = [Path(word).parts[-3] for word in child.cmdline() if word.endswith("/model.py")]
                parts.setdefault(f"{name}: {models[0]}" if models else name, []).append(child)
        return parts


async def main() -> None:
    """Measure the checkouts in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="another checkout, with its own .venv, to stand in the table first")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SPEECH_S, help="of speech that is measured in each round")
    chosen = parser.parse_args()
    checkouts = [Checkout(path.resolve()) for path in (chosen.peer, CHECKOUT) if path is not None]
    for checkout in checkouts:
        say(f"preparing {checkout.name}")
        checkout.prepare()
    warm_up = await speeches(WARM_UP_S)
    speech = await speeches(chosen.seconds)
    for number in range(chosen.rounds):
        for checkout in checkouts if number % 2 == 0 else reversed(checkouts):
            say(f"round {number + 1} of {chosen.rounds}: {checkout.name}")
            checkout.rounds.append(await measure(checkout, warm_up, speech, chosen.seconds))
    write("footprint", report(checkouts, chosen.seconds, chosen.rounds))


async def measure(checkout: Checkout, warm_up: Sequence[Pcm], speech: Sequence[Pcm], speech_s: float) -> Figures:
    """Start a checkout's stack, stream to it, and return the figures of the round."""
    async with running(checkout) as stack:
        await asyncio.gather(*(stream(samples) for samples in warm_up))
        parts = stack.processes()
        memory: dict[tuple[str, str], list[float]] = {}
        cpu_s = {part: sum(map(cpu_seconds, processes)) for part, processes in parts.items()}
        streams = asyncio.gather(*(stream(samples) for samples in speech))
        while not (await asyncio.wait({streams}, timeout=SAMPLE_EVERY_S))[0]:
            for part, processes in parts.items():
                for measure_name, value in memory_mb(processes).items():
                    memory.setdefault((measure_name, part), []).append(value)
        figures: Figures = {("start", name): seconds for name, seconds in stack.started_s.items()}
        figures |= {key: statistics.median(values) for key, values in memory.items()}
        for part, processes in parts.items():
            # Divide by the length of the speech, not of the round: late finals must not make the work look cheaper.
            figures["cpu", part] = 100 * (sum(map(cpu_seconds, processes)) - cpu_s[part]) / speech_s
        for measure_name in ("pss", "cpu"):  # no sum of RSS, which counts shared pages once for each process
            figures[measure_name, ALL] = sum(value for (name, _), value in figures.items() if name == measure_name)
        finals = [final for got in streams.result() for final in got]
        checkout.delays_s += [final.delay_s for final in finals if final.speech_final and final.delay_s is not None]
        checkout.words.append(sum(len(final.text.split()) for final in finals))
        return figures


@asynccontextmanager
async def running(checkout: Checkout) -> AsyncIterator[Running]:
    """Run a checkout's stack for the length of the block."""
    with tempfile.TemporaryDirectory() as state, (Path(state) / "up.log").open("w+") as log:
        began_s = time.time()
        command = [str(checkout.program), "up"]
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(checkout, Path(state)), stdout=log, stderr=log
        )
        try:
            yield await until_started(process, Path(state) / "status.json", began_s)
        except BaseException:
            log.seek(0)
            say(log.read())
            raise
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                await asyncio.wait_for(process.wait(), STOP_LIMIT_S)


def environment(checkout: Checkout, state: Path | None) -> dict[str, str]:
    """Return an environment in which `whisperline-local` has its defaults, whatever this process's environment has."""
    foreign = ("WHISPERLINE_", "OTEL_", "PYTHON", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own["WHISPERLINE_LOCAL_CACHE_DIR"] = str(checkout.path / ".state" / "cache")
    own["WHISPERLINE_LOCAL_GATEWAY_PORT"] = str(GATEWAY_PORT)
    own["WHISPERLINE_LOCAL_PORT_OFFSET"] = str(PORT_OFFSET)
    if state is not None:
        own["WHISPERLINE_LOCAL_STATE_DIR"] = str(state)
    return own


async def until_started(process: asyncio.subprocess.Process, status: Path, began_s: float) -> Running:
    """Wait until every service is healthy. Return how long each took, in seconds from the start of its process."""
    pids: dict[str, int] = {}
    started_s: dict[str, float] = {}
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the stack ended with {process.returncode} while it started")
            services = read_services(status)
            now_s = time.time()
            for row in services:
                if row["pid"] is not None:
                    pids[row["name"]] = row["pid"]
                    if row["state"] in STARTED and row["name"] not in started_s:
                        started_s[row["name"]] = now_s - psutil.Process(row["pid"]).create_time()
            if services and all(row["state"] in STARTED for row in services):
                break
            await asyncio.sleep(POLL_S)
    alive = {row["name"]: row["pid"] for row in services if row["pid"] is not None}
    return Running(alive, {**started_s, ALL: now_s - began_s})


def read_services(status: Path) -> list[dict[str, Any]]:
    """Return the rows of the file in which `whisperline-local` keeps the state of its services."""
    if not status.exists():
        return []
    services: list[dict[str, Any]] = json.loads(status.read_text())["services"]
    return services


async def stream(samples: Pcm) -> list[Final]:
    """Stream samples in real time, and return the finals."""

    async def blocks() -> AsyncIterator[bytes]:
        for at in range(0, len(samples), SAMPLE_RATE):
            yield samples[at : at + SAMPLE_RATE].tobytes()

    finals: list[Final] = []
    client = Client([f"http://127.0.0.1:{GATEWAY_PORT + PORT_OFFSET}"], close_timeout_s=60)
    audio = pace(blocks(), bytes_per_s=2 * SAMPLE_RATE)
    async with client.stream(audio, ListenOptions(language="en")) as events:
        async for event in events:
            if isinstance(event, Final):
                finals.append(event)
            elif isinstance(event, Closed) and event.connection_count != 1:
                raise RuntimeError(f"a stream needed {event.connection_count} connections: its figures are not valid")
    return finals


async def speeches(duration_s: float) -> list[Pcm]:
    """Return different speech of this length for each stream, the same in every round."""
    if (SPEECH_DIR / "manifest.jsonl").is_file():
        recordings = [clip.read() for clip in recorded_clips()]
    else:
        recordings = [soundfile.read(await demo_speech(LocalSettings()), dtype="int16")[0]]
    silence = np.zeros(round(GAP_S * SAMPLE_RATE), np.int16)
    found = []
    for number in range(STREAMS):
        first = number * len(recordings) // STREAMS
        in_turn = [*recordings[first:], *recordings[:first]]
        spoken = np.concatenate([part for recording in in_turn for part in (recording, silence)])
        found.append(np.resize(spoken, round(duration_s * SAMPLE_RATE)))
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time that a process has used, including that of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def memory_mb(processes: Sequence[psutil.Process]) -> dict[str, float]:
    """Return the memory of some processes in 10^6 bytes: PSS shares a common page out, RSS counts it for each."""
    sums = {"pss": 0.0, "rss": 0.0}
    for process in processes:
        rows = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = {row.split()[0].lower().rstrip(":"): int(row.split()[1]) for row in rows}
        for name in sums:
            sums[name] += fields[name] * 1024 / 1e6
    return sums


def report(checkouts: Sequence[Checkout], seconds: float, rounds: int) -> list[str]:
    """Return the whole report: how it was measured, and a row for each measure and process."""
    columns = ["measure", "process", *(checkout.name for checkout in checkouts)]
    columns += ["change"] if len(checkouts) > 1 else []
    command = f"make bench-footprint ROUNDS={rounds}" + (" PEER=..." if len(checkouts) > 1 else "")
    notes = [
        f"{STREAMS} live streams of real English speech, {seconds:.0f} s after {WARM_UP_S:.0f} s of warm-up; tiny.en "
        f"on the CPU. Medians of {rounds} rounds, with the least and the most in brackets. The columns are commits.",
        "Start-up is from the birth of a process until the supervisor finds it ready, or for `everything` from the "
        "command to the last of them. PSS shares a page out among the processes that map it. CPU "
        "is the processor time that the speech and its finals took, over the length of the speech.",
    ]
    return [
        *heading("What each process costs", command, *notes),
        *table(columns, rows(checkouts)),
        *same_work(checkouts),
    ]


def rows(checkouts: Sequence[Checkout]) -> Iterator[list[str]]:
    """Yield a row for each measure of each process."""
    found = {key for checkout in checkouts for figures in checkout.rounds for key in figures}
    for measure_name, title in MEASURES.items():
        parts = sorted((part for name, part in found if name == measure_name), key=lambda part: (part == ALL, part))
        for part in parts:
            values = [[figures.get((measure_name, part), 0.0) for figures in each.rounds] for each in checkouts]
            digits = 2 if measure_name == "start" else 1
            cells = [
                f"{statistics.median(each):.{digits}f} ({min(each):.{digits}f} to {max(each):.{digits}f})"
                for each in values
            ]
            if len(checkouts) > 1:
                before, after = map(statistics.median, values)
                cells.append(f"{100 * (after / before - 1):+.0f} %" if before else "new")
            yield [title, part, *cells]


def same_work(checkouts: Sequence[Checkout]) -> list[str]:
    """Return each checkout's finals and delays: costs are comparable only for the same work at the same speed."""
    return [
        f"- {checkout.name}: {statistics.median(checkout.words):.0f} words in a round; from the end of speech to the "
        f"final, which includes the closing silence: median {statistics.median(checkout.delays_s):.2f} s, 95th "
        f"percentile {statistics.quantiles(checkout.delays_s, n=20)[-1]:.2f} s."
        for checkout in checkouts
    ]


if __name__ == "__main__":
    asyncio.run(main())
