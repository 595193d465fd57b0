"""Record the reference's answers, so that tests can compare with them without its environment.

Each kind of recording is one file: `base` (real speech in several languages, with options), `beams` (beam search),
`fallback` (judgements of the temperature fallback), `shapes` (random weights of the official sizes), `vocabulary`
(special tokens and prompts).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from whisperline_models.engine.audio import SAMPLE_RATE
from whisperline_models.gate import Clip, read_manifest
from whisperline_models.gate.clips import take_spread
from whisperline_models.settings import ModelSettings
from whisperline_models.weights import load_checkpoint

from reference_tools.ask import Question, ask, ask_texts
from reference_tools.shapes import ENGLISH, SHAPES, random_checkpoint, with_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from whisperline_models.weights import Checkpoint

    Asked = list[tuple[Clip, Question]]
    Rows = Iterable[Mapping[str, Any]]

# Sizes for which no real weights are available, and the numbers of encoder and decoder layers that tests have time for.
CUTS = {
    "small": (1, 1),
    "medium.en": (1, 1),
    "large-v2": (1, 1),
    "large-v3": (1, 2),
    "large-v3-turbo": (2, 1),
    "distil-small.en": (3, 1),
}
SHAPE_TOKENS = 24
PROMPT = "Leader of the Conservatives, Sally Osterhaus; minutes taken by Dr. Ott."  # any text with unusual names
TEXTS = [
    *(
        "Dr. Ott",
        "  two  spaces ",
        "C'est l'été à Zürich.",
        "日本語のテキスト",
        "Привет, мир",
        "naïve café 😀",
        "1,000.50 € (ca.)",
    ),
    *("tab\tand\nnewline", "don't they'll", "…—“quotes”", "a" * 40, "한국어", "ภาษาไทย", "\u200bzero width", "é"),
]


# Debian's packages asterisk-core-sounds-{fr,es,it}-wav: studio voices at 8 kHz, with a telephone's bandwidth
PROMPTS_DIR = Path("/usr/share/asterisk/sounds")
_VOICES = {"fr": "fr_CA_f_June", "es": "es_MX_f_Allison", "it": "it_IT_m_Carlo"}


class OracleSettings(BaseSettings):
    """The location of the oracle, from environment variables."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_", frozen=True)

    oracle_python: Path = Field(Path(".tools/oracle/bin/python"), description="the oracle's interpreter")


def record(folder: Path, kinds: Iterable[str], settings: ModelSettings, python: Path) -> None:
    """Write `<kind>.json` in `folder`, one row on each line. `python` is the oracle's interpreter."""
    for kind in kinds:
        rows = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in KINDS[kind](settings, python)]
        (folder / f"{kind}.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


def read_prompts(language: str, n_clips: int, folder: Path = PROMPTS_DIR) -> list[Clip]:
    """Return telephone prompts of 2.5 to 30 s in a language, spread over the set; none if the folder lacks them."""
    clips = [
        Clip(f"{language}/{path.stem}", path, language, "", duration_s)
        for path in sorted((folder / _VOICES[language]).glob("*.wav"))
        if 2.5 <= (duration_s := soundfile.info(path).duration) <= 30
    ]
    return take_spread(clips, n_clips)


def _base(settings: ModelSettings, python: Path) -> Rows:
    speech = {c: read_manifest(settings.speech_dir, {c}) for c in ("en", "fr", "es", "de", "ja", "zh", "pt")}
    prompts = {code: read_prompts(code, n) for code, n in (("fr", 12), ("es", 12), ("it", 24))}
    asked: Asked = [(clip, Question(clip.language, ("greedy",))) for code in ("fr", "es") for clip in speech[code]]
    asked += [(clip, Question(clip.language, ("greedy",))) for code in prompts for clip in prompts[code]]
    timed = [*speech["fr"][:3], *speech["es"][:3], *prompts["it"][:3]]
    asked += [(clip, Question(clip.language, ("greedy", "words"))) for clip in timed]
    foreign = [*speech["fr"][:2], *speech["es"][:2], *speech["de"][:2], speech["ja"][0], *prompts["it"][:2]]
    asked += [(clip, Question(clip.language, ("decode",), "translate")) for clip in foreign]
    asked += [(clip, Question(None, ("decode",))) for clip in [*foreign, *speech["zh"], speech["pt"][0]]]
    english = sorted(speech["en"], key=lambda clip: -clip.duration_s)[2:5]
    for prompt in (PROMPT, f"{PROMPT} " * 20):  # the second has more tokens than a prompt may keep
        asked += [(clip, Question("en", ("decode",), prompt=prompt, timestamps=True)) for clip in english]
        asked += [(clip, Question(None, ("decode",), prompt=prompt)) for clip in [*foreign[:3], english[0]]]
    asked.append((foreign[0], Question(None, ("decode",), "translate", PROMPT, timestamps=True)))
    return _ask_about_clips(load_checkpoint("base", settings.cache), asked, python)


def _fallback(settings: ModelSettings, python: Path) -> Rows:
    """Record English-only weights, which are unsure of other languages and of clips without speech."""
    taken = {"en": 10, "de": 8, "fr": 8, "es": 3, "ja": 2, "zh": 1}
    clips = [clip for code, n in taken.items() for clip in read_manifest(settings.speech_dir, {code})[::4][:n]]
    clips += read_manifest(settings.speech_dir, {"zxx"})
    asked = [(clip, Question("en", ("fallback",), timestamps=True)) for clip in clips]
    return _ask_about_clips(load_checkpoint("tiny.en", settings.cache), asked, python)


def _beams(settings: ModelSettings, python: Path) -> Rows:
    """Record beam search with tiny.en, which is often unsure: with and without timestamps, patience, length penalty."""
    clips = [clip for clip in read_manifest(settings.speech_dir, {"en"}) if clip.duration_s <= 30]
    spread = take_spread(clips, 24)
    asked = [(clip, Question("en", ("decode",), beam_size=5)) for clip in spread]
    asked += [(clip, Question("en", ("decode",), beam_size=5, timestamps=True)) for clip in spread[::2]]
    asked += [(clip, Question("en", ("decode",), beam_size=3, patience=2.0)) for clip in spread[1::4]]
    asked += [(clip, Question("en", ("decode",), beam_size=2, length_penalty=0.6)) for clip in spread[2::4]]
    asked += [(clip, Question("en", ("decode",), beam_size=5, prompt=PROMPT)) for clip in spread[3::4]]
    return _ask_about_clips(load_checkpoint("tiny.en", settings.cache), asked, python)


def _ask_about_clips(checkpoint: Checkpoint, asked: Asked, python: Path) -> Rows:
    audio = [(clip.read().astype(np.float32) / 32768, question) for clip, question in asked]
    with TemporaryDirectory() as scratch:
        answers = ask(checkpoint, audio, python, Path(scratch))
    for (clip, question), answer in zip(asked, answers.rows, strict=True):
        options = asdict(question)
        kept = ["language", "task", "prompt", "timestamps"]
        if question.beam_size:
            kept += ["beam_size", "patience"] + (["length_penalty"] if question.length_penalty is not None else [])
        yield {"clip": clip.id, "options": {name: options[name] for name in kept}, **_rounded(answer)}


def _rounded(value: Any) -> Any:
    """Return the answer with numbers rounded to six digits, and without `all`, whose tokens are also in `text`."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items() if key != "all"}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _shapes(settings: ModelSettings, python: Path) -> Rows:
    for name in CUTS:
        checkpoint = cut_checkpoint(name, settings.cache)
        question = Question("en", ("greedy", "outputs"), sample_length=SHAPE_TOKENS)
        with TemporaryDirectory() as scratch:
            answers = ask(checkpoint, [(shape_audio(), question)], python, Path(scratch))
        arrays = {kind: answers.arrays[f"{kind}_0"][0] for kind in ("mel", "hidden", "logits")}
        yield {"shape": name, "fed": answers.rows[0]["greedy"]["all"], **_rounded(thin(arrays))}


def cut_checkpoint(name: str, cache: Path) -> Checkpoint:
    """Return random weights of an official size with the layers of `CUTS`."""
    dimensions = with_layers(SHAPES[name], *CUTS[name])
    tokenizer = load_checkpoint("tiny.en" if dimensions.n_vocab == ENGLISH else "base", cache).tokenizer_json
    return random_checkpoint(name, dimensions, tokenizer, seed=len(name))


def shape_audio() -> NDArray[np.float32]:
    """Return eight seconds of noise of varying volume, over a rising tone."""
    seconds = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(8).normal(0, 0.1, seconds.size) * np.sin(3 * seconds) ** 2
    tone = 0.2 * np.sin(2 * np.pi * (200 + 150 * seconds) * seconds)
    both: NDArray[np.float32] = (noise + tone).astype(np.float32)
    return both


def thin(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, list[list[float]]]:
    """Return somewhat more than a hundred elements of each matrix, spread over all rows and columns."""
    return {
        name: array[:: max(1, array.shape[0] // 12), :: max(1, array.shape[1] // 10)].tolist()
        for name, array in arrays.items()
    }


def _vocabulary(_settings: ModelSettings, python: Path) -> Rows:
    with TemporaryDirectory() as scratch:
        found = ask_texts(TEXTS, python, Path(scratch))
    return [{"kind": kind, **tokens} for kind, tokens in found.items()]


KINDS: dict[str, Callable[[ModelSettings, Path], Rows]] = {
    "base": _base,
    "beams": _beams,
    "fallback": _fallback,
    "shapes": _shapes,
    "vocabulary": _vocabulary,
}
