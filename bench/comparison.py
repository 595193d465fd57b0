"""Compare our Triton with faster-whisper in turns, on the same clips, weights and CPU."""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from clips import recorded_clips, word_error_rate
from course import PROBE, Course
from floor import FULL_WINDOW, GREEDY, expectations
from ours import Server, serving
from peer import Mode, Peer, peer
from reference import reference_texts
from report import THREADS, say, spread, table, verdict

ROUNDS = 5
CLOSE_TO_BEST = 0.85  # a peer below this share of the best throughput in the first round leaves the comparison
MAX_PEER_ERROR_PERCENT = 20
MAX_EMPTY_SHARE = 0.04  # of the texts may be empty: noisy clips may be judged silent, which the error rate shows
N_PROBES = 20
PAUSE_S = 0.3  # after each probe, because the peer's OpenMP threads go on spinning for 0.2 s
LIKE = {
    "beam_size": 1,
    "best_of": 1,
    "temperature": 0.0,
    "without_timestamps": True,
    "condition_on_previous_text": False,
}
WORDS = {"timestamps": True, "words": True}
IN_FLIGHT = 16
FILLED = 3  # a round of ours fills its batch at least this many times
N_LIKE_CLIPS = 16
FASTEST = {"beam_size": 1, "without_timestamps": True}
FASTEST_WORDS = {"beam_size": 1, "word_timestamps": True}
COMPUTE_TYPES = ("int8", "float32")
COLUMNS = ("", "rounds", "audio s per s", "word error rate", "one clip p50, ms", "p95, ms", "peak memory, MB")

Group = tuple[int, bool]  # how many clips are decoded at a time, and whether words are timed
Round = tuple[float, dict[str, str]]  # seconds, and the text of each clip


@dataclass
class Contestant:
    """A way to transcribe, and its figures. Contestants with the same `group` are compared with each other."""

    name: str
    group: Group
    run: Callable[[list[str]], Awaitable[Round]]
    memory_mb: Callable[[], float]
    walls_s: list[float] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    passes: int = 1  # over the clips in a round; with too few, part of the last batch would be idle for long
    peak_mb: float = 0.0

    @property
    def wall_s(self) -> float:
        return statistics.median(self.walls_s)


async def like_for_like() -> list[str]:
    """Compare at equal batch sizes: 30 s windows, greedy, no timestamps, no voice activity filter."""
    course = await Course.mixed(N_LIKE_CLIPS)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(windows_s=FULL_WINDOW))
        expected = expectations(server, course, (1, 8, 16))
        ours = [_ours(server, course, n, GREEDY) for n in (1, 8, 16)]
        modes = [Mode("sequential", kind, options=LIKE) for kind in COMPUTE_TYPES]
        modes += [Mode("pipeline", kind, batch=batch, options=LIKE) for batch in (8, 16) for kind in COMPUTE_TYPES]
        peers = [
            _theirs(await stack.enter_async_context(peer(mode, course.pcm, THREADS)), (mode.batch, False))
            for mode in modes
        ]
        await _take_turns(course, ours, peers)
        await _probe([c for c in [*ours, *peers] if c.group == (1, False)])
    lines = [*_describe(course), *expected, "- Both: 30 s windows, greedy without fallback, text alone.", ""]
    lines += table(COLUMNS, [_row(course, c) for c in [*ours, *peers]])
    return lines + table(("batch", "faster than faster-whisper's faster variant"), _ratios(course, ours, peers, 1.5))


async def deployed() -> list[str]:
    """Compare as `sentences` does, but over evenly spread lengths: half of the clips need windows of over 16 s."""
    return await _deployed(await Course.mixed())


async def sentences() -> list[str]:
    """Compare as each would be deployed, on recorded sentences: 16 requests at a time, one clip alone, error rates."""
    return await _deployed(await Course.recorded())


async def _deployed(course: Course) -> list[str]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving())
        expected = expectations(server, course, [IN_FLIGHT])
        ours = [_ours(server, course, IN_FLIGHT, options) for options in ({}, WORDS)]
        shapes = [(kind, batch, n) for kind, batch in (("sequential", 1), ("pipeline", 8)) for n in (1, 2)]
        modes = [Mode(kind, c, n, batch, FASTEST) for c in COMPUTE_TYPES for kind, batch, n in shapes]
        modes += [Mode(kind, c, n, batch, FASTEST_WORDS) for c in COMPUTE_TYPES for kind, batch, n in shapes]
        groups = [(IN_FLIGHT, mode.options is FASTEST_WORDS) for mode in modes]
        peers = [
            _theirs(await stack.enter_async_context(peer(mode, course.pcm, THREADS)), group)
            for mode, group in zip(modes, groups, strict=True)
        ]
        await _take_turns(course, ours, peers)
        alone = [c for c, mode in zip(peers, modes, strict=True) if mode.workers == 1 and c.group == (IN_FLIGHT, False)]
        await _probe([*ours, *alone])
        errors = await _errors(server)
    lines = [*_describe(course), *expected]
    lines += ["- faster-whisper: beam 1, else its defaults; no timestamps, or in the rows so named with words.", ""]
    lines += table(COLUMNS, [_row(course, c) for c in [*ours, *peers]])
    return lines + table(("as deployed", ""), _deployed_ratios(course, ours, peers)) + errors


def _describe(course: Course) -> list[str]:
    return [
        f"- {len(course.clips)} English clips, {course.duration_s:.0f} s, {course.lengths}.",
        f"- One clip: {course.probe_s:.0f} s, alone, {N_PROBES} times.",
        f"- Both sides have {THREADS} threads and take turns; medians of the rounds. Peak memory: without the client.",
    ]


def _throughput(course: Course, contestant: Contestant) -> float:
    return course.duration_s / contestant.wall_s


def _ours(server: Server, course: Course, in_flight: int, options: dict[str, Any]) -> Contestant:
    async def run(names: list[str]) -> Round:
        wall_s, answers = await server.ask_all([(name, course.pcm[name]) for name in names], options, in_flight)
        return wall_s, {name: answer["text"] for name, answer in answers.items()}

    has_words = bool(options.get("words"))
    asked = "words" if has_words else "text alone"
    passes = max(1, math.ceil(FILLED * in_flight / len(course.clips)))
    group = (in_flight, has_words)
    return Contestant(f"Triton, {asked}, {in_flight} at a time", group, run, server.memory_mb, passes=passes)


def _theirs(process: Peer, group: Group) -> Contestant:
    return Contestant(str(process.mode), group, process.transcribe, process.memory_mb)


async def _take_turns(course: Course, ours: list[Contestant], peers: list[Contestant]) -> None:
    """Run the rounds. Only peers that were close to the best of their kind in the first round run in the others."""
    for contestant in [*ours, *peers]:
        await contestant.run(course.names[:2])  # warm-up
    staying = peers
    for number in range(1, ROUNDS + 1):
        for contestant in _alternating(ours, staying):
            say(f"round {number} of {ROUNDS}: {contestant.name}")
            wall_s, contestant.texts = await contestant.run(course.names * contestant.passes)
            contestant.walls_s.append(wall_s / contestant.passes)
            contestant.peak_mb = contestant.memory_mb()
            _check(course, contestant)
        staying = [peer for peer in staying if peer.wall_s <= _best(peers, peer.group).wall_s / CLOSE_TO_BEST]


def _best(contestants: list[Contestant], group: Group) -> Contestant:
    return min((contestant for contestant in contestants if contestant.group == group), key=lambda c: c.wall_s)


def _alternating(ours: list[Contestant], peers: list[Contestant]) -> list[Contestant]:
    """Alternate our rounds with those of the peers, so that a slow minute of the machine affects both."""
    share = max(1, len(peers) // len(ours))
    order: list[Contestant] = []
    for index, contestant in enumerate(ours):
        last = len(peers) if index == len(ours) - 1 else (index + 1) * share
        order += [contestant, *peers[index * share : last]]
    return order


def _check(course: Course, contestant: Contestant) -> None:
    """Stop if a contestant is fast only because its texts are empty or wrong."""
    empty = [name for name in course.names if not contestant.texts[name]]
    error = word_error_rate(course.clips, contestant.texts)
    if len(empty) > MAX_EMPTY_SHARE * len(course.clips) or error > MAX_PEER_ERROR_PERCENT:
        raise SystemExit(
            f"{contestant.name}: {len(empty)} texts are empty, word error rate {error:.1f} %: no comparison"
        )


async def _probe(contestants: list[Contestant]) -> None:
    say(f"latency of one clip: {N_PROBES} times {len(contestants)}")
    for _ in range(N_PROBES):
        for contestant in contestants:
            await asyncio.sleep(PAUSE_S)
            began_s = time.perf_counter()
            _, texts = await contestant.run([PROBE])
            contestant.latencies_s.append(time.perf_counter() - began_s)
            assert texts[PROBE]


def _row(course: Course, contestant: Contestant) -> list[str]:
    error = word_error_rate(course.clips, contestant.texts)
    latency = spread(contestant.latencies_s) if contestant.latencies_s else "- | -"
    figures = [f"{_throughput(course, contestant):.1f}", f"{error:.2f} %", latency, f"{contestant.peak_mb:.0f}"]
    return [contestant.name, str(len(contestant.walls_s)), *figures]


def _ratios(course: Course, ours: list[Contestant], peers: list[Contestant], least: float) -> list[list[str]]:
    rows = []
    for contestant in ours:
        best = _best(peers, contestant.group)
        ratio = _throughput(course, contestant) / _throughput(course, best)
        rows.append([str(contestant.group[0]), f"{verdict(ratio, least=least)} ({best.name})"])
    return rows


def _deployed_ratios(course: Course, ours: list[Contestant], peers: list[Contestant]) -> list[list[str]]:
    fastest, fastest_words = _best(peers, (IN_FLIGHT, False)), _best(peers, (IN_FLIGHT, True))
    soonest = min((p for p in peers if p.latencies_s), key=lambda peer: statistics.median(peer.latencies_s))
    rows = []
    for contestant in ours:
        ratio = _throughput(course, contestant) / _throughput(course, fastest)
        share = statistics.median(contestant.latencies_s) / statistics.median(soonest.latencies_s)
        rows.append([f"{contestant.name}: throughput, times that of {fastest.name}", verdict(ratio, least=6.0)])
        rows.append([f"{contestant.name}: one clip, share of the time of {soonest.name}", verdict(share, most=0.4)])
    ratio = _throughput(course, ours[-1]) / _throughput(course, fastest_words)
    rows.append([f"{ours[-1].name}: throughput, times that of {fastest_words.name}", f"{ratio:.2f}"])
    return rows


async def _errors(server: Server) -> list[str]:
    """Return the table of word error rates on all recorded clips, with that of the float32 reference."""
    clips = recorded_clips()
    say(f"word error rate on {len(clips)} clips")
    pcm = {clip.id: clip.read() for clip in clips}
    reference = word_error_rate(clips, reference_texts(clips))
    rows = [["transformers, float32, greedy, 30 s windows", f"{reference:.2f} %", ""]]
    for name, options in (("Triton, text alone", {}), ("Triton, words", WORDS)):
        _, answers = await server.ask_all(list(pcm.items()), options, IN_FLIGHT)
        error = word_error_rate(clips, {clip: answer["text"] for clip, answer in answers.items()})
        rows.append([name, f"{error:.2f} %", verdict(error - reference, most=0.3)])
    columns = (
        f"{len(clips)} recorded clips, {sum(c.duration_s for c in clips):.0f} s",
        "word error rate",
        "points more",
    )
    return table(columns, rows)
