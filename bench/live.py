"""Stream real speech live, more and more of it until the machine is full, beside WhisperLive with the same weights.

    make bench-live                        # 1 to 32 streams of a minute each, about 15 minutes
    make bench-live STREAMS="8 24" PEER=0  # only these, and without WhisperLive

Every stream plays recordings of people who talk and who read aloud, one after the other, in real time. Both systems are
judged by what a client sees. For each recording: the time from its true end of speech (see `utterances.py`) until its
words are in the text that does not change any more. Which words of the text belong to a recording comes from aligning
the whole text with what was said. For ours, also the time from the closing of a segment to its final, as the
transcriber measures it. The table goes to bench/results/live.md and the curves to bench/results/live.svg.
"""

import argparse
import asyncio
import math
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import httpx
import jiwer
import matplotlib as mpl
import numpy as np
import psutil
from clips import SAMPLE_RATE, Pcm
from footprint import Running, cpu_seconds, memory_mb
from ours import CACHE, PORT_OFFSET
from playing import play
from prometheus_client.parser import text_string_to_metric_families
from report import RESULTS, THREADS, heading, percentile, say, table, verdict, write
from utterances import utterances
from whisper_live import VERSION, WhisperLive, whisper_live
from whisperline_client import ListenOptions
from whisperline_local import LocalSettings, Stack
from whisperline_models.gate import scoring

STREAMS = (1, 2, 4, 8, 12, 16, 24, 32)
SPEECH_S = 60.0
PROGRAMMES = 8  # different ones; more streams share them, each beginning at another moment
PER_KIND = 24  # utterances of each kind, of which the programmes are made
GAP_S = 2.0  # silence between two recordings, so that each ends a turn: longer than the longest closing silence
SPREAD_S = 6.0  # within which the streams of a round begin
CHUNK_MS = 100
BROKEN_S = 5.0  # a system whose 95th percentile is later, or that loses a connection, gets no further streams
TARGET_STREAMS, CLOSING_TO_FINAL_S, PARTIALS_PER_S = 24, 1.0, 0.5


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]  # of metrics, by name and labels


@dataclass(frozen=True)
class Programme:
    """What a stream plays: recordings one after the other, with the end of each one's speech, in seconds."""

    samples: Pcm
    texts: list[str]
    ends_s: list[float]


@dataclass(frozen=True)
class Heard:
    """What a client of either system saw.

    `grown` is the text that does not change any more, as it grew: the time in seconds from the first sample, and the
    whole text so far.
    """

    grown: list[tuple[float, str]]
    partials: int
    is_lost: bool = False  # the connection broke


@dataclass
class Round:
    """The figures of one system with a number of streams."""

    system: str
    streams: int
    delays_s: list[float] = field(default_factory=list)
    lost: int = 0  # streams whose connection broke
    never_final: int = 0  # recordings none of whose words became final
    partials_per_s: list[float] = field(default_factory=list)  # of each stream
    errors: int = 0
    words_said: int = 0
    words_heard: list[tuple[int, int]] = field(default_factory=list)  # programme, words
    cpu: dict[str, float] = field(default_factory=dict)  # cores, by process
    memory_mb: float = 0.0
    closing_to_final_s: tuple[float, float] | None = None  # p50, p95
    requests: list[str] = field(default_factory=list)  # cells of a table, see `requests`

    @property
    def p50_s(self) -> float:
        return percentile(self.delays_s, 50) if len(self.delays_s) > 1 else math.inf

    @property
    def p95_s(self) -> float:
        return percentile(self.delays_s, 95) if len(self.delays_s) > 1 else math.inf

    @property
    def is_broken(self) -> bool:
        """True if the machine is full."""
        return self.lost > 0 or self.p95_s > BROKEN_S


async def main() -> None:
    """Measure both systems, and write the table and the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--seconds", type=float, default=SPEECH_S, help="of speech on each stream")
    parser.add_argument("--peer", type=int, default=1, help="0 leaves WhisperLive out")
    chosen = parser.parse_args()
    say("reading speech")
    programmes = make_programmes(chosen.seconds)
    rounds = await ours(programmes, chosen.streams)
    if chosen.peer:
        rounds += await peer(programmes, chosen.streams)
    draw(rounds)
    write("live", report(rounds, programmes, chosen.seconds))


async def ours(programmes: Sequence[Programme], counts: Sequence[int]) -> list[Round]:
    """Return our figures for each number of streams."""
    rounds: list[Round] = []
    options = ListenOptions(language="en")
    with tempfile.TemporaryDirectory() as state:
        async with Stack(LocalSettings(state_dir=Path(state), cache_dir=CACHE, port_offset=PORT_OFFSET)) as stack:
            pids = {service.name: stack.pid(service.name) for service in stack.services}
            running = Running({name: pid for name, pid in pids.items() if pid is not None}, {})

            async def stream(programme: Programme) -> Heard:
                played = await play(stack.gateway_urls, programme.samples, options, chunk_ms=CHUNK_MS)
                finals, text = [], ""
                for at_s, final in played.finals:
                    text = f"{text} {final.text}".strip()
                    finals.append((at_s, text))
                return Heard(finals, len(played.partials), bool(played.lost))

            await stream(programmes[0])  # warm-up
            for count in counts:
                metrics_url = f"http://127.0.0.1:{stack.settings.ports.transcriber_metrics}/metrics"
                before = await scrape(metrics_url)
                figures = await measure("ours", programmes, count, stream, running.processes())
                grown = {key: value - before.get(key, 0.0) for key, value in (await scrape(metrics_url)).items()}
                buckets = {
                    float(dict(labels)["le"]): value
                    for (name, labels), value in grown.items()
                    if name == "final_seconds_bucket" and ("priority", "live") in labels
                }
                figures.closing_to_final_s = quantile(buckets, 0.5), quantile(buckets, 0.95)
                figures.requests = requests(grown)
                rounds.append(figures)
                if figures.is_broken:
                    break
    return rounds


async def peer(programmes: Sequence[Programme], counts: Sequence[int]) -> list[Round]:
    """Return WhisperLive's figures for each number of streams. Its server is a new one each time."""
    rounds: list[Round] = []
    for count in counts:
        async with whisper_live(THREADS) as server:

            async def stream(programme: Programme, server: WhisperLive = server) -> Heard:
                shown = await server.stream(programme.samples)
                return Heard([(each.at_s, each.complete_text) for each in shown], len(shown))

            await stream(programmes[0])  # warm-up
            process = psutil.Process(server.pid)
            processes = {"WhisperLive": [process, *process.children(recursive=True)]}
            rounds.append(await measure("WhisperLive", programmes, count, stream, processes))
        if rounds[-1].is_broken:
            break
    return rounds


async def measure(
    system: str,
    programmes: Sequence[Programme],
    count: int,
    stream: Callable[[Programme], Awaitable[Heard]],
    processes: Mapping[str, Sequence[psutil.Process]],
) -> Round:
    """Play `count` programmes at once, and return the figures."""
    say(f"{system}: {count} streams")
    figures = Round(system, count)
    length_s = len(programmes[0].samples) / SAMPLE_RATE
    cpu_s = {process: cpu_seconds(process) for members in processes.values() for process in members}

    async def play_later(number: int) -> Heard:
        # Evenly spread, so that streams with the same programme do not need the same thing at the same moment.
        await asyncio.sleep(SPREAD_S * number / count)
        return await stream(programmes[number % len(programmes)])

    heard = await asyncio.gather(*(play_later(number) for number in range(count)))
    for part, members in processes.items():
        living = [process for process in members if process.is_running()]  # PostgreSQL's workers come and go
        figures.cpu[part] = sum(cpu_seconds(process) - cpu_s[process] for process in living) / length_s
        figures.memory_mb += memory_mb(living)["pss"]
    for number, each in enumerate(heard):
        judge(figures, number % len(programmes), programmes[number % len(programmes)], each)
        figures.partials_per_s.append(each.partials / length_s)
        figures.lost += each.is_lost
    say(f"p50 {figures.p50_s:.2f} s, p95 {figures.p95_s:.2f} s, not final {figures.never_final}, lost {figures.lost}")
    return figures


def judge(figures: Round, number: int, programme: Programme, heard: Heard) -> None:
    """Add a stream's delays and errors to the figures."""
    said = [normal(text) for text in programme.texts]
    text = normal(heard.grown[-1][1] if heard.grown else "")
    figures.words_said += sum(map(len, said))
    figures.words_heard.append((number, len(text)))
    if not text:
        figures.errors += sum(map(len, said))
        figures.never_final += len(said)
        return
    words = jiwer.process_words(" ".join(word for words in said for word in words), " ".join(text))
    figures.errors += words.substitutions + words.deletions + words.insertions
    grown = [(at_s, len(normal(each))) for at_s, each in heard.grown]
    for end_s, needed in zip(programme.ends_s, words_needed(words, said), strict=True):
        if needed is None:
            figures.never_final += 1
        else:
            figures.delays_s.append(next(at_s for at_s, length in grown if length >= needed) - end_s)


def words_needed(aligned: jiwer.WordOutput, said: Sequence[Sequence[str]]) -> list[int | None]:
    """Return for each recording how many words of the whole text reach to the end of it; None if it has no word there.

    Words that were not heard are left out: a recording whose last word is missing ends with the one before.
    """
    heard = [0] * sum(map(len, said))  # by word that was said: the number of words of the text up to the one for it
    for chunk in aligned.alignments[0]:
        if chunk.type in {"equal", "substitute"}:
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                heard[chunk.ref_start_idx + offset] = chunk.hyp_start_idx + offset + 1
    ends = list(accumulate(map(len, said)))
    return [max(heard[end - len(words) : end]) or None for words, end in zip(said, ends, strict=True)]


def normal(text: str) -> list[str]:
    """Return the words of an English text, after Whisper's own normalisation."""
    return scoring.normalize(text, "en").split()


def make_programmes(seconds: float) -> list[Programme]:
    """Return PROGRAMMES different programmes of this length; what they end with is silence."""
    spoken = utterances(PER_KIND)
    programmes = []
    for number in range(PROGRAMMES):
        first = number * len(spoken) // PROGRAMMES
        parts: list[Pcm] = []
        texts: list[str] = []
        ends_s: list[float] = []
        length_s = 0.0
        for utterance in [*spoken[first:], *spoken[:first]]:
            part = utterance.with_silence(GAP_S)
            if length_s + len(part) / SAMPLE_RATE > seconds:
                break
            parts.append(part)
            texts.append(utterance.text)
            ends_s.append(length_s + utterance.end_s)
            length_s += len(part) / SAMPLE_RATE
        samples = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
        samples[: sum(map(len, parts))] = np.concatenate(parts)
        programmes.append(Programme(samples, texts, ends_s))
    return programmes


async def scrape(metrics_url: str) -> Samples:
    """Return a process's metrics by name and labels."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(metrics_url)).text
    return {
        (sample.name.removeprefix("whisperline_transcriber_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def requests(grown: Samples) -> list[str]:
    """Return cells on the requests of a round: their number and mean time by lane, and what speculations came to."""

    def value(name: str, **labels: str) -> float:
        return grown.get((name, frozenset(labels.items())), 0.0)

    cells = []
    for lane in ("final", "partial"):
        count = value("decode_seconds_count", lane=lane)
        cells += [f"{count:.0f}", f"{value('decode_seconds_sum', lane=lane) / count:.2f}" if count else "-"]
    outcomes = ("used", "discarded", "failed")
    return [*cells, *(f"{value('speculations_total', outcome=outcome):.0f}" for outcome in outcomes)]


def quantile(counts: Mapping[float, float], share: float) -> float:
    """Return a quantile of a histogram's cumulative counts, interpolated within its bucket as Prometheus does."""
    wanted, below, lower = share * max(counts.values(), default=0), 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = count, bound
    return math.nan


def report(rounds: Sequence[Round], programmes: Sequence[Programme], seconds: float) -> list[str]:
    """Return the tables and the verdicts."""
    recordings = sum(len(programme.texts) for programme in programmes)
    spoken_s = sum(programme.ends_s[-1] - GAP_S * (len(programme.ends_s) - 1) for programme in programmes)
    share = spoken_s / (len(programmes) * seconds)
    notes = [
        f"tiny.en on the CPU; {seconds:.0f} s of speech on each stream in real time, {len(programmes)} programmes of "
        f"{recordings} recordings in all; WhisperLive {VERSION} with the same weights and its defaults, a new server "
        "for each row.",
        f"Speech and the pauses within it are {100 * share:.0f} % of the audio, the rest is the silence between turns. "
        "`speech to final`: from the true end of a recording's speech until its words are in the text that does not "
        "change any more, closing silence included. `close to final`: from the closing of a segment to its final, by "
        "the transcriber's histogram. CPU in cores: processor time by the length of a stream. `not final`: "
        "recordings none of whose words became final. `streams with fewer words`: than the first stream that played "
        "the same programme, which had the fewest beside it.",
        "",
        "![p95 of the delay, and partials, by streams](live.svg)",
    ]
    columns = (
        "system",
        "streams",
        "speech to final p50, s",
        "p95, s",
        "close to final p50, s",
        "p95, s",
        "partials/s each",
        "fewest",
        "word errors, %",
        "not final",
        "lost connections",
        "streams with fewer words",
        "CPU",
        "memory (PSS), MB",
    )
    first: dict[tuple[str, int], int] = {}
    rows = []
    for each in rounds:
        fewer = 0
        for number, words in each.words_heard:
            fewer += words < first.setdefault((each.system, number), words)
        closing = each.closing_to_final_s
        rows.append(
            [
                each.system,
                each.streams,
                f"{each.p50_s:.2f}",
                f"{each.p95_s:.2f}",
                *(f"{value:.2f}" for value in closing or ()),
                *(() if closing else ("", "")),
                f"{statistics.mean(each.partials_per_s):.2f}",
                f"{min(each.partials_per_s):.2f}",
                f"{100 * each.errors / each.words_said:.1f}",
                each.never_final,
                each.lost,
                fewer,
                f"{sum(each.cpu.values()):.2f}",
                f"{each.memory_mb:.0f}",
            ]
        )
    parts = sorted({part for each in rounds if each.system == "ours" for part in each.cpu})
    cpu_rows = [
        [each.streams, *(f"{each.cpu.get(part, 0.0):.2f}" for part in parts)]
        for each in rounds
        if each.system == "ours"
    ]
    targets = [
        line
        for each in rounds
        if each.system == "ours" and each.streams == TARGET_STREAMS and each.closing_to_final_s
        for line in (
            f"- {each.streams} streams, p95 from the close to the final, s: "
            f"{verdict(each.closing_to_final_s[1], most=CLOSING_TO_FINAL_S)}.",
            f"- {each.streams} streams, partials a second each: "
            f"{verdict(statistics.mean(each.partials_per_s), least=PARTIALS_PER_S)}.",
        )
    ]
    return [
        *heading("Live streams on one machine", "make bench-live", *notes),
        *table(columns, rows),
        *targets,
        "",
        "Requests to Triton in the lane of finals (speculations among them) and of partials, with the mean time of an "
        "answer in s, and what became of speculations:",
        "",
        *table(
            ("streams", "finals", "s", "partials", "s", "used", "discarded", "failed"),
            [[each.streams, *each.requests] for each in rounds if each.requests],
        ),
        "Cores by process, ours:",
        "",
        *table(("streams", *parts), cpu_rows),
    ]


def draw(rounds: Sequence[Round]) -> None:
    """Draw the delay and the partials by streams."""
    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of its backend

    figure, (delays, partials) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for system in dict.fromkeys(each.system for each in rounds):
        own = [each for each in rounds if each.system == system]
        streams = [each.streams for each in own]
        delays.plot(streams, [each.p95_s for each in own], marker="o", label=f"{system}, p95")
        delays.plot(streams, [each.p50_s for each in own], marker=".", linestyle=":", label=f"{system}, p50")
        partials.plot(streams, [statistics.mean(each.partials_per_s) for each in own], marker="o", label=system)
    delays.set(xlabel="streams", ylabel="end of speech to final text, s", ylim=(0, BROKEN_S))
    partials.set(xlabel="streams", ylabel="partials a second and stream", ylim=(0, None))
    for axes in (delays, partials):
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "live.svg")


if __name__ == "__main__":
    asyncio.run(main())
