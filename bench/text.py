"""Measure the text that people read: live and of whole files, ours and the peers', with the same weights.

    make bench-text                          all tables
    make bench-text ARGS="--only en_wuw"     these sources (folders) or tags alone
    make bench-text ARGS="--whisper-live 0"  without WhisperLive, which takes as long as it is given audio

All answers are kept in the cache by what they depend on. A second run asks only for what has changed.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
from borders import Borders, is_punctuated, judge_borders, lost_at_onsets
from in_process import InProcess
from live_text import Change, live_text
from ours import CACHE
from peer import MODEL, Mode, peer
from recordings import NO_SPEECH, Recording, read_recordings
from report import THREADS, heading, say, table, verdict, write
from whisper_live import VERSION, whisper_live
from whisperline_contracts import Final, StreamOptions, Word
from whisperline_models.gate import scoring
from whole_text import whole_text

MULTILINGUAL = "base"
WHISPER_LIVE_S = 600.0  # of natural English that WhisperLive hears by default
NO_TEXTS = ("digits",)  # single digits are no sentences

WINDOWS, WINDOWS_BEAM = "ours, windows of 30 s", "ours, windows, beam 5"
FILE_LANE = "ours, file lane"
GREEDY, BEAM = "faster-whisper, greedy", "faster-whisper, beam 5"
PEERS = {GREEDY: 1, BEAM: 5}
LIVE = "live"
ENDPOINTING = {f"endpointing={ms}": StreamOptions(endpointing_ms=ms) for ms in (500, 300, 25)}
LANES = {LIVE: StreamOptions(), **ENDPOINTING, FILE_LANE: StreamOptions(priority="file")}
QUIETER = {"20 dB down": Change(gain_db=-20), "40 dB down": Change(gain_db=-40), "offset 0.3": Change(offset=0.3)}
WHISPER_LIVE = f"WhisperLive {VERSION}"

Texts = dict[str, str]  # by the recording's id


@dataclass(frozen=True)
class Group:
    """A row of the tables: recordings with something in common."""

    name: str
    recordings: tuple[Recording, ...]

    def error_rate(self, texts: Texts) -> float:
        """Return the word error rate in per cent, after Whisper's own normalisation."""
        said = [scoring.normalize(recording.text, recording.language) for recording in self.recordings]
        heard = [scoring.normalize(texts[recording.id], recording.language) for recording in self.recordings]
        return 100 * float(jiwer.wer(said, heard))


def english_groups(english: Sequence[Recording]) -> list[Group]:
    """Return the rows for English; the first is all natural speech, then its sources, then other tags."""

    def group(name: str, is_in: Callable[[Recording], bool]) -> Group:
        return Group(name, tuple(filter(is_in, english)))

    sources = sorted({recording.source for recording in english if "natural" in recording.tags})
    found = [
        group("natural", lambda recording: "natural" in recording.tags),
        *(group(f"- {source}", lambda recording, name=source: recording.source == name) for source in sources),  # type: ignore[misc]
        group("read", lambda recording: "read" in recording.tags and "long" not in recording.tags),
        group("telephone", lambda recording: "phone8k" in recording.tags),
        group("noisy", lambda recording: bool(recording.tags & {"noisy", "background-noise"})),
        group("long, read", lambda recording: "long" in recording.tags),
    ]
    return [each for each in found if each.recordings]


class Results:
    """Everything that was measured with one model, by column and recording: texts, finals, words of whole files."""

    def __init__(self, model: str, recordings: Sequence[Recording], silent: Sequence[Recording] = ()) -> None:
        self.recordings, self.silent = recordings, silent
        self.texts: dict[str, Texts] = {}
        self.finals: dict[str, dict[str, list[Final]]] = {}
        self.words: dict[str, list[Word]] = {}
        self._engine = InProcess(model, THREADS)

    def ask_whole(self) -> None:
        """Decode all recordings as whole files, with a beam and greedily. The words are those of the greedy text."""
        tokenizer = self._engine.tokenizer
        for column, beam_size in ((WINDOWS_BEAM, 5), (WINDOWS, 1)):
            say(column)
            asked = {"beam_size": beam_size}
            answers = self._engine.run(
                whole_text(r.read_16_khz(), tokenizer, r.language, asked) for r in self.recordings
            )
            self.texts[column] = {r.id: text for r, (text, _) in zip(self.recordings, answers, strict=True)}
            self.words = {r.id: words for r, (_, words) in zip(self.recordings, answers, strict=True)}

    def ask_live(self, column: str, options: StreamOptions, change: Change | None = None, tag: str = "") -> None:
        """Compute the finals of all recordings (of those with `tag`) and of those without speech."""
        say(column)
        asked = [r for r in self.recordings if not tag or tag in r.tags] + [*self.silent]
        tasks = (live_text(r, options.model_copy(update={"language": _known(r.language)}), change) for r in asked)
        self.finals[column] = dict(zip((r.id for r in asked), self._engine.run(tasks), strict=True))
        self.texts[column] = {
            name: " ".join(final.text for final in finals if final.text) for name, finals in self.finals[column].items()
        }

    def texts_without_speech(self, column: str) -> int:
        """Return the number of finals with a text in recordings without speech."""
        return sum(bool(final.text) for r in self.silent for final in self.finals[column][r.id])

    def borders(self, column: str) -> Borders:
        """Judge the borders of natural speech by the references that have punctuation, else by the whole file."""
        found = Borders()
        for recording in self.recordings:
            if "natural" in recording.tags:
                by = recording.text if is_punctuated(recording.text) else self.texts[WINDOWS][recording.id]
                finals = self.finals[column][recording.id]
                found += judge_borders([(final.text, final.ends_turn) for final in finals], by)
        return found

    def onsets(self, column: str) -> tuple[int, int]:
        """Return how many words at onsets of natural speech the whole file has right, and how many of them are lost."""
        pairs = [
            lost_at_onsets(self.words[r.id], self.texts[column][r.id], r.text)
            for r in self.recordings
            if "natural" in r.tags
        ]
        return sum(found for found, _ in pairs), sum(lost for _, lost in pairs)


async def main() -> None:
    """Ask everybody, and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[], help="sources or tags")
    parser.add_argument("--whisper-live", type=float, default=WHISPER_LIVE_S, help="seconds of audio for WhisperLive")
    chosen = parser.parse_args()
    wanted = set(chosen.only)
    recordings = [r for r in read_recordings() if not wanted or r.tags & wanted or r.source in wanted]
    english = [r for r in recordings if r.language == "en" and not r.tags & set(NO_TEXTS)]
    silent = [r for r in recordings if r.language == NO_SPEECH]
    lines: list[str] = []
    if english:
        lines += await english_tables(english, silent, chosen.whisper_live)
    others = [r for r in recordings if r.language not in ("en", NO_SPEECH)]
    if others:
        lines += await other_tables(others)
    notes = (
        "Word error rates are in per cent, after Whisper's normalisation. Each channel of a call counts for itself.",
        "Live text: the transcriber's own session, in process, since finals depend on the samples alone.",
        "The file lane is that session with the priority of files. Windows of 30 s follow openai-whisper.",
        "Peers: int8, and their own defaults but for the beam.",
    )
    command = "make bench-text" + (f' ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else "")
    write("text", [*heading("The text that people read", command, *notes), *lines])


async def english_tables(english: list[Recording], silent: list[Recording], whisper_live_s: float) -> list[str]:
    """Return the tables for English, with `tiny.en`, and the targets."""
    results = Results(MODEL, english, silent)
    results.ask_whole()
    for column, options in LANES.items():
        results.ask_live(column, options)
    for column, change in QUIETER.items():
        results.ask_live(column, LANES[LIVE], change, tag="natural")
    results.texts |= await peer_texts(english, MODEL)
    results.texts[WHISPER_LIVE] = await whisper_live_texts(english, whisper_live_s)

    groups = english_groups(english)
    columns = [FILE_LANE, WINDOWS, WINDOWS_BEAM, *PEERS, LIVE, *ENDPOINTING]
    lines = ["## Word error rate", ""]
    lines += table(("English, `tiny.en`", "recordings", *columns), [_row(group, results, columns) for group in groups])
    heard = Group("natural, a part", tuple(r for r in english if r.id in results.texts[WHISPER_LIVE]))
    if heard.recordings:
        beside = [WHISPER_LIVE, LIVE, *ENDPOINTING, FILE_LANE, *PEERS]
        lines += table(("beside WhisperLive", "recordings", *beside), [_row(heard, results, beside)])
    natural = groups[0]
    if natural.name != "natural":
        return lines

    lines += ["## Borders between finals, onsets, invented text", ""]
    faults = []
    for column in LANES:
        borders, (found, lost) = results.borders(column), results.onsets(column)
        n_finals = sum(len(results.finals[column][r.id]) for r in natural.recordings)
        row = [column, n_finals, borders.in_sentence, borders.invented, borders.ended_turns, f"{lost} of {found}"]
        faults.append([*row, results.texts_without_speech(column)])
    faults_columns = ("finals", "borders in mid-sentence", "with a stop or capital", "told as the end of a turn")
    lines += table(("natural English", *faults_columns, "words lost at onsets", "texts without speech"), faults)

    lines += ["## Level and offset", ""]
    levels = [
        [column, f"{natural.error_rate(results.texts[column]):.1f}", results.texts_without_speech(column)]
        for column in (LIVE, *QUIETER)
    ]
    lines += table(("natural English, live", "word error rate", "texts without speech"), levels)
    return [*lines, "## Targets", "", *table(("", "points"), _targets(groups, heard, results))]


async def other_tables(recordings: list[Recording]) -> list[str]:
    """Return the table for other languages, with `base`."""
    results = Results(MULTILINGUAL, recordings)
    results.ask_whole()
    for column in (LIVE, FILE_LANE):
        results.ask_live(column, LANES[column])
    results.texts |= await peer_texts(recordings, MULTILINGUAL)
    languages = sorted({recording.language for recording in recordings})
    groups = [Group(name, tuple(r for r in recordings if r.language == name)) for name in languages]
    columns = [FILE_LANE, WINDOWS, WINDOWS_BEAM, *PEERS, LIVE]
    return table((f"`{MULTILINGUAL}`", "recordings", *columns), [_row(group, results, columns) for group in groups])


def _row(group: Group, results: Results, columns: Sequence[str]) -> list[str]:
    rates = [f"{group.error_rate(results.texts[column]):.1f}" for column in columns]
    return [group.name, str(len(group.recordings)), *rates]


def _targets(groups: Sequence[Group], heard: Group, results: Results) -> list[list[str]]:
    """Return the rows of the targets. Ours as a whole file is the file lane."""
    natural = groups[0].error_rate

    def more(group: Group, column: str, than: str) -> float:
        return group.error_rate(results.texts[column]) - group.error_rate(results.texts[than])

    rows = [
        *(
            [f"natural, {ours}, above {theirs}", verdict(more(groups[0], ours, theirs), most=0.0)]
            for ours, theirs in ((FILE_LANE, GREEDY), (WINDOWS, GREEDY), (WINDOWS_BEAM, BEAM))
        ),
        # The file lane cuts as live text does, so live text is compared with the peer's whole file, too.
        *(
            [f"natural, {column}, above {whole}", verdict(more(groups[0], column, whole), most=most)]
            for column, most in ((LIVE, 1.0), ("endpointing=300", 2.0), ("endpointing=25", 2.0))
            for whole in (FILE_LANE, GREEDY)
        ),
        *(
            [f"{group.name}, live, above the file lane", verdict(more(group, LIVE, FILE_LANE), most=0.2)]
            for group in groups
            if group.name == "read"
        ),
        ["words lost at onsets", verdict(results.onsets(LIVE)[1], most=0)],
        *(
            [
                f"natural, {column}, above 0 dB",
                verdict(natural(results.texts[column]) - natural(results.texts[LIVE]), most=most),
            ]
            for column, most in zip(QUIETER, (0.5, 2.0, 0.5), strict=True)
        ),
        ["texts without speech", verdict(results.texts_without_speech(LIVE), most=0)],
    ]
    if heard.recordings:
        rows.insert(0, ["live, above WhisperLive", verdict(more(heard, LIVE, WHISPER_LIVE), most=0.0)])
    return rows


async def peer_texts(recordings: Sequence[Recording], model: str) -> dict[str, Texts]:
    """Return the texts of faster-whisper, by column."""
    found: dict[str, Texts] = {}
    for column, beam_size in PEERS.items():
        say(f"{column}, {model}")
        known = Known(f"faster-whisper-{model}-beam-{beam_size}", recordings)
        for language in sorted({recording.language for recording in recordings}):
            asked = [r for r in recordings if r.language == language and r.id not in known.texts]
            if asked:
                mode = Mode("sequential", "int8", options={"beam_size": beam_size, "language": language})
                # A name in the archive of clips may not have a slash.
                names = {str(number): recording.id for number, recording in enumerate(asked)}
                clips = {str(number): recording.read_16_khz() for number, recording in enumerate(asked)}
                async with peer(mode, clips, THREADS, model) as process:
                    _, texts = await process.transcribe([*clips])
                known.add({names[number]: text for number, text in texts.items()})
        found[column] = known.texts
    return found


async def whisper_live_texts(english: Sequence[Recording], most_s: float) -> Texts:
    """Return what WhisperLive shows at the end of natural recordings, each streamed alone and in real time.

    It hears the longest of every source, up to `most_s` seconds in all, besides what it heard in earlier runs.
    """
    natural = [recording for recording in english if "natural" in recording.tags]
    known = Known(f"whisper-live-{VERSION}", natural)
    subset = longest_of_each_source(natural, most_s)
    missing = [recording for recording in subset if recording.id not in known.texts]
    if missing:
        async with whisper_live(THREADS) as server:
            for recording in missing:
                say(f"{WHISPER_LIVE}: {recording.id}")
                shown = await server.stream(recording.read_16_khz())
                known.add({recording.id: shown[-1].text if shown else ""})
    return known.texts


def longest_of_each_source(recordings: Sequence[Recording], most_s: float) -> list[Recording]:
    """Return recordings of up to `most_s` seconds in all: the longest of each source, then the second longest, ..."""
    by_source: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda recording: -recording.duration_s):
        by_source.setdefault(recording.source, []).append(recording)
    chosen: list[Recording] = []
    for place in range(max(map(len, by_source.values()), default=0)):
        for source in sorted(by_source):
            following = by_source[source][place : place + 1]
            if sum(each.duration_s for each in [*chosen, *following]) <= most_s:
                chosen += following
    return chosen


class Known:
    """The texts that a peer gave for these recordings, in this run or an earlier one, by their files and channels."""

    def __init__(self, name: str, recordings: Sequence[Recording]) -> None:
        self._path = CACHE / "bench-text" / f"{name}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._keys = {r.id: r.sha256 if r.channel is None else f"{r.sha256}/{r.channel}" for r in recordings}
        self._all: dict[str, str] = json.loads(self._path.read_text()) if self._path.is_file() else {}
        self.texts: Texts = {clip: self._all[key] for clip, key in self._keys.items() if key in self._all}

    def add(self, texts: Texts) -> None:
        """Keep texts."""
        self.texts |= texts
        self._all |= {self._keys[clip]: text for clip, text in texts.items()}
        self._path.write_text(json.dumps(self._all, ensure_ascii=False))


def _known(language: str) -> str | None:
    return None if language == NO_SPEECH else language


if __name__ == "__main__":
    asyncio.run(main())
