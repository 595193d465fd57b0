"""Compute the least time for a request (operations and bytes over the machine's limits), and compare ours with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ceilings import Ceilings
from clips import SAMPLE_RATE, BenchClip, Pcm
from course import PROBE, Course
from ours import Answer, Server, serving
from report import milliseconds, say, table
from whisperline_models.engine.fallback import MARGIN_S
from work import Work

FED_TOKENS = 3  # tokens besides the text, without timestamps: two of the prompt, and the end
TOKENS_PER_WORD = 1.35
REACH = 0.6  # the share of the floor's speed to expect, because the floor leaves out filters, copies and gRPC
GREEDY = {"temperature": 0.0}  # without sampled attempts
FULL_WINDOW = (30,)


@dataclass(frozen=True)
class Text:
    """The sizes that the cost of a request depends on."""

    n_tokens: int
    window_s: float
    audio_s: float

    @classmethod
    def of(cls, answer: Answer, audio: Pcm) -> "Text":
        """Return the sizes of a request that was answered."""
        return cls(len(answer["tokens"]), answer["window_s"], len(audio) / SAMPLE_RATE)

    @classmethod
    def expected(cls, clip: BenchClip, windows_s: Sequence[float]) -> "Text":
        """Return the sizes to expect for a clip, from its length and its number of words."""
        window_s = min((w for w in windows_s if w >= clip.duration_s + MARGIN_S), default=max(windows_s))
        return cls(round(TOKENS_PER_WORD * len(clip.text.split())), window_s, clip.duration_s)


@dataclass(frozen=True)
class Floor:
    """The least times, in seconds, that the same work can take on this machine."""

    work: Work
    ceilings: Ceilings

    def encoder_s(self, text: Text) -> float:
        """Return the floor of encoding one window, its spectrogram included: it is bound by operations."""
        int8, float32 = (self.work.encoder_pairs(text.window_s, int8=kind) for kind in (True, False))
        float32 += self.work.spectrogram_pairs(text.audio_s)
        return int8 / self.ceilings.int8 + float32 / self.ceilings.float32

    def decoder_s(self, texts: Sequence[Text], n_rows: int) -> float:
        """Return the floor of decoding texts, `n_rows` in each step: bound by bytes, or by operations if slower."""
        n_steps = [text.n_tokens + FED_TOKENS for text in texts]
        int8, float32 = (self.work.step_pairs(int8=kind) for kind in (True, False))
        operations_s = sum(n_steps) * (int8 / self.ceilings.int8 + float32 / self.ceilings.float32)
        weights = self.work.step_bytes * max(*n_steps, sum(n_steps) / n_rows)
        cached = sum(n * self.work.row_bytes(text.window_s, n / 2) for n, text in zip(n_steps, texts, strict=True))
        return max(operations_s, (weights + cached) / self.ceilings.bandwidth)

    def seconds(self, texts: Sequence[Text], n_rows: int) -> tuple[float, float]:
        """Return the floors of the encoder and of the decoder."""
        return sum(self.encoder_s(text) for text in texts), self.decoder_s(texts, n_rows)


def expectations(server: Server, course: Course, rows_at_a_time: Sequence[int]) -> list[str]:
    """Return the expected throughput as lines of the report, which are written before any measurement."""
    floor = Floor(Work.of(server.version), Ceilings.measure())
    texts = [Text.expected(clip, floor.work.spec.windows_s) for clip in course.clips]
    at_floor = {n: course.duration_s / sum(floor.seconds(texts, n)) for n in rows_at_a_time}
    return [
        f"- Expected before the run, {n} at a time: {value * REACH:.0f} audio s per s, {REACH:.0%} of the {value:.0f} "
        "at the floor (operations and bytes over this machine's ceilings)."
        for n, value in at_floor.items()
    ]


async def floor() -> list[str]:
    """Count the work, measure the limits, run each mix once more, and compare its time with the floor."""
    course = await Course.mixed()
    say("this machine's ceilings")
    ceilings = Ceilings.measure()
    rows, mixed = [], {name: course.pcm[name] for name in course.names}
    async with serving() as server:
        own = Floor(Work.of(server.version), ceilings)
        rows.append(await _mix(own, server, {PROBE: course.pcm[PROBE]}, 1))
        rows.append(await _mix(own, server, mixed, 16))
    async with serving(windows_s=FULL_WINDOW) as server:
        fewer = dict(list(mixed.items())[::2])
        full = Floor(Work.of(server.version), ceilings)
        rows += [await _mix(full, server, fewer, n) for n in (1, 8, 16)]
    columns = ("mix", "encoder, ms", "decoder, ms", "floor, ms", "measured, ms", "times the floor")
    limits = [
        ["memory, 10^9 bytes a second", f"{ceilings.bandwidth / 1e9:.1f}"],
        ["float32 products, 10^9 operations a second", f"{ceilings.float32 * 2 / 1e9:.0f}"],
        [f"int8 products ({ceilings.int8_kind})", f"{ceilings.int8 * 2 / 1e9:.0f}"],
    ]
    measured = ["## Measured here, at most", "", *table(("ceiling", ""), limits)]
    return [*_counted(own.work), *measured, "## How far we are from it", "", *table(columns, rows)]


async def _mix(floor: Floor, server: Server, pcm: dict[str, Pcm], n_rows: int) -> list[object]:
    is_full = floor.work.spec.windows_s == FULL_WINDOW
    clips = f"{len(pcm)} clips" if len(pcm) > 1 else "one clip"
    what = f"{clips}, {n_rows} at a time, {'30 s windows' if is_full else 'as deployed'}"
    say(what)
    walls_s = []
    for _ in range(3):
        wall_s, answers = await server.ask_all(list(pcm.items()), GREEDY if is_full else {}, n_rows)
        walls_s.append(wall_s)
    encoder_s, decoder_s = floor.seconds([Text.of(answer, pcm[name]) for name, answer in answers.items()], n_rows)
    least_s, measured_s = encoder_s + decoder_s, sorted(walls_s)[1]
    figures = [milliseconds(value) for value in (encoder_s, decoder_s, least_s, measured_s)]
    return [what, *figures, f"{measured_s / least_s:.2f}"]


def _counted(work: Work) -> list[str]:
    windows = (5, 10, 15, 20, 25, 30)
    rows = [
        [f"encoder, {w} s", *(f"{work.encoder_pairs(w, int8=kind) * 2 / 1e9:.2f}" for kind in (True, False)), "-", "-"]
        for w in windows
    ]
    rows += [
        [
            f"decoder, a step, {w} s",
            *(f"{work.step_pairs(int8=kind) * 2 / 1e9:.3f}" for kind in (True, False)),
            f"{work.step_bytes / 1e6:.1f}",
            f"{work.row_bytes(w, 30) / 1e6:.1f}",
        ]
        for w in windows
    ]
    products = (*work.encoder, *work.decoder)
    kinds = ", ".join(sorted({f"{part.kind} in {'int8' if part.is_int8 else 'float'}" for part in products}))
    columns = ("", "int8, 10^9 operations", "float32", "weights, MB", "a row's caches at 30 tokens, MB")
    return ["## Counted in the graphs", "", f"Operators with weights: {kinds}.", "", *table(columns, rows)]
