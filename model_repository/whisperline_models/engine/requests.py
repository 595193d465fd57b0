"""What a request asks for and what it gets: the shapes of `options` and `result` on Triton's interface."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .log_mel import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

Task = Literal["transcribe", "translate"]
Lane = Literal["final", "partial", "file"]

MAX_SAMPLES = 30 * SAMPLE_RATE
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried one after the other while the guards fail, as in the reference
MAX_TEMPERATURES = 8
MAX_OPTIONS_BYTES = 65_536
MAX_PROMPT_CHARACTERS = 8_192  # of prompt and of hotwords: ten times what their 223 tokens can hold in English


class RequestError(ValueError):
    """A request that cannot be served, with the reason for its sender."""


class RequestCancelled(Exception):
    """Its sender no longer waits for the answer."""


@dataclass(frozen=True)
class Request:
    """Mono 16 kHz audio in -1..1 and how to decode it.

    `language` None means detect it. `prompt` is text that came before, `hotwords` are words to expect. One
    temperature is tried in the window of the audio and then in 30 s; of several, the next is tried while the guards
    fail. `lane` says who waits.
    """

    audio: NDArray[np.float32]
    language: str | None = None
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    timestamps: bool = False
    words: bool = False
    temperatures: tuple[float, ...] = TEMPERATURES
    lane: Lane = "final"

    @classmethod
    def parse(cls, audio: NDArray[np.int16], options: bytes, languages: Collection[str]) -> Request:
        """Check one row of the interface; `languages` are the model's. Raises `RequestError`."""
        if not 1 <= audio.size <= MAX_SAMPLES:
            raise RequestError(f"audio has {audio.size} samples: send 1 to {MAX_SAMPLES} (30 s at 16 kHz)")
        fields = _parse_options(options)
        language = fields.get("language")
        if language is not None and language not in languages:
            raise RequestError(f"options.language: this model has no {_shown(language)}, only {_some(languages)}")
        if fields.get("task") == "translate" and set(languages) == {"en"}:
            raise RequestError("options.task: this model knows English alone and cannot translate, only transcribe")
        return cls(audio.astype(np.float32) / 32768.0, **fields)


@dataclass(frozen=True)
class Result:
    """The answer to one request; times are in ms from the start of its audio, `text` is "" without speech."""

    text: str
    language: str
    tokens: tuple[int, ...]
    words: tuple[dict[str, str | int | float], ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    window_s: float
    model: str
    version: str

    def to_json(self) -> str:
        """The answer as the interface carries it."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def _parse_options(options: bytes) -> dict[str, Any]:
    if len(options) > MAX_OPTIONS_BYTES:
        raise RequestError(f"options have {len(options)} bytes: send at most {MAX_OPTIONS_BYTES}")
    try:
        fields = json.loads(options)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"options are not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError("options must be a JSON object")
    return dict(_read(name, value) for name, value in fields.items())


def _read(name: str, value: Any) -> tuple[str, Any]:
    """The request's field that an option sets, and its value."""
    if name not in _OPTIONS:
        raise RequestError(f"options.{_shown(name)[1:-1]} is not known, only {_some(_OPTIONS)}")
    field, read, allowed = _OPTIONS[name]
    try:
        return field, read(value)
    except ValueError as error:
        raise RequestError(f"options.{name}: {_shown(value)} {str(error) or 'will not do'}, send {allowed}") from error


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("has the wrong type")
    return value


def _language(value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError("has the wrong type")
    return value


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return read


def _text(value: Any) -> str:
    """Text for the prompt: no part of it may be taken for one of Whisper's special tokens."""
    if not isinstance(value, str | None):
        raise ValueError("has the wrong type")
    text = (value or "").strip()
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"has {len(text)} characters")
    if "<|" in text:
        raise ValueError("holds <|, with which special tokens begin")
    text.encode()  # raises for half of a surrogate pair, which is no text
    return text


def _hotwords(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return _text(", ".join(word.strip() for word in value))
    return _text(value)


def _temperatures(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    numbers = [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]
    if not 1 <= len(values) <= MAX_TEMPERATURES or numbers != values or not all(0 <= n <= 1 for n in numbers):
        raise ValueError
    return tuple(map(float, numbers))


_SOME_TEXT = f"text of up to {MAX_PROMPT_CHARACTERS} characters"
# option: the request's field, what reads it, and what is allowed
_OPTIONS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "language": ("language", _language, "a language code, or null to detect it"),
    "task": ("task", _one_of(get_args(Task)), " or ".join(get_args(Task))),
    "prompt": ("prompt", _text, f"{_SOME_TEXT} without <|"),
    "hotwords": ("hotwords", _hotwords, f"{_SOME_TEXT} without <|, or a list of words"),
    "timestamps": ("timestamps", _boolean, "true or false"),
    "words": ("words", _boolean, "true or false"),
    "temperature": ("temperatures", _temperatures, f"a number from 0 to 1, or a list of 1 to {MAX_TEMPERATURES}"),
    "lane": ("lane", _one_of(get_args(Lane)), " or ".join(get_args(Lane))),
}


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _some(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
