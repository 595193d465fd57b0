"""Parse and check a request: the inputs `audio` and `options` of Triton's interface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .audio import N_SAMPLES, SAMPLE_RATE
from .errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

Task = Literal["transcribe", "translate"]
Words = Literal[False, True, "rough"]
Lane = Literal["final", "partial", "file"]  # the kind of result that is waited for, the most urgent first
LANES: tuple[Lane, ...] = get_args(Lane)

MAX_SAMPLES = N_SAMPLES
SAMPLES_PER_MS = SAMPLE_RATE // 1000
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # the reference's temperature fallback
MAX_TEMPERATURES = 8
MAX_BEAM_SIZE = 5  # the rows of the decoder that share a window in an export
MAX_OPTIONS_BYTES = 65_536
MAX_PROMPT_CHARACTERS = 8_192  # in each of prompt, hotwords and prefix: about ten times what 223 tokens of English hold


@dataclass(frozen=True)
class Request:
    """Mono 16 kHz audio in -1..1 and the options for decoding it.

    If `language` is None, it is detected among `languages`, or among all that the model knows if that is empty.
    `prompt` is the text before the audio; `hotwords` are words to expect in the audio. `prefix` is the text of the
    first `prefix_ms` of the audio: the decoder continues it, and the result holds only what follows. `words` asks for
    words with times: True aligns them with the audio, "rough" estimates the times from the lengths of the words.
    `temperatures` are tried in order by the temperature fallback (`fallback.py`). At temperature 0, beam search keeps
    `beam_size` hypotheses: 1 decodes greedily, and None takes the engine's default for the lane. `patience` and
    `length_penalty` are those of the reference.
    """

    audio: NDArray[np.float32]
    language: str | None = None
    languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    prefix: str = ""
    prefix_ms: int = 0
    timestamps: bool = False
    words: Words = False
    temperatures: tuple[float, ...] = TEMPERATURES
    beam_size: int | None = None
    patience: float = 1.0
    length_penalty: float | None = None
    lane: Lane = "final"

    @classmethod
    def parse(cls, audio: NDArray[np.int16], options: bytes, languages: Collection[str]) -> Request:
        """Parse one row of the interface, for a model that knows these languages. Raises `RequestError`."""
        if not 1 <= audio.size <= MAX_SAMPLES:
            raise RequestError(f"audio has {audio.size} samples: send 1 to {MAX_SAMPLES} (30 s at 16 kHz)")
        if len(options) > MAX_OPTIONS_BYTES:
            raise RequestError(f"options have {len(options)} bytes: send at most {MAX_OPTIONS_BYTES}")
        try:
            values = json.loads(options)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"options are not JSON: {error}") from error
        if not isinstance(values, dict):
            raise RequestError("options must be a JSON object")
        fields = dict(read_option(name, value) for name, value in values.items())
        language, allowed = fields.get("language"), fields.get("languages", ())
        for name, codes in (("language", () if language is None else (language,)), ("languages", allowed)):
            for code in codes:
                if code not in languages:
                    known = _show_some(languages)
                    raise RequestError(f"options.{name}: this model has no {_show(code)}, only {known}")
        if language is None and len(allowed) == 1:
            fields["language"] = allowed[0]
        if bool(fields.get("prefix")) != (fields.get("prefix_ms", 0) > 0):
            raise RequestError("options.prefix and options.prefix_ms: send both or neither")
        prefix_ms, audio_ms = fields.get("prefix_ms", 0), audio.size / SAMPLES_PER_MS
        if prefix_ms >= audio_ms:
            raise RequestError(f"options.prefix_ms: {prefix_ms} leaves no new audio: it has {audio_ms:.0f} ms")
        if fields.get("task") == "translate" and set(languages) == {"en"}:
            raise RequestError("options.task: this model knows English alone and cannot translate, only transcribe")
        return cls(audio.astype(np.float32) / 32768.0, **fields)


def read_option(name: str, value: object) -> tuple[str, Any]:
    """Return the name and the value of the `Request` field that an option sets. Raises `RequestError`."""
    if name not in _OPTIONS:
        raise RequestError(f"options.{_show(name)[1:-1]} is not known, only {_show_some(_OPTIONS)}")
    field, read, allowed = _OPTIONS[name]
    try:
        return field, read(value)
    except ValueError as error:
        raise RequestError(f"options.{name}: {_show(value)} {str(error) or 'will not do'}, send {allowed}") from error


# The readers of each kind of option. Each returns the field's value, or raises `ValueError` with the reason.


def read_boolean(value: object) -> bool:
    """Accept only the JSON values true and false."""
    if not isinstance(value, bool):
        raise ValueError("has the wrong type")
    return value


def read_language(value: object) -> str | None:
    """Accept any text or null; `Request.parse` checks the code, because the languages depend on the model."""
    if not isinstance(value, str | None):
        raise ValueError("has the wrong type")
    return value


def read_languages(value: object) -> tuple[str, ...]:
    """Accept a list of language codes; `Request.parse` checks them."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise ValueError("has the wrong type")
    return tuple(dict.fromkeys(value))


def read_words(value: object) -> Words:
    """Accept true, false or "rough"."""
    return "rough" if value == "rough" else read_boolean(value)


def read_whole_number(value: object) -> int:
    """Accept a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("has the wrong type")
    if value < 0:
        raise ValueError
    return value


def read_name(names: tuple[str, ...]) -> Callable[[object], str]:
    """Return a reader that accepts one of these names."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return read


def read_text(value: object) -> str:
    """Accept text for the prompt that cannot be mistaken for one of Whisper's special tokens."""
    if not isinstance(value, str | None):
        raise ValueError("has the wrong type")
    text = (value or "").strip()
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"has {len(text)} characters")
    if "<|" in text:
        raise ValueError("holds <|, with which special tokens begin")
    text.encode()  # raises `UnicodeEncodeError`, a `ValueError`, for half of a surrogate pair, which JSON allows
    return text


def read_hotwords(value: object) -> str:
    """Accept text or a list of words.

    A list is written as in OpenAI's guide to Whisper's prompts. Without the full stop, Whisper leaves out full stops in
    its own text, too. Without "Glossary", it writes the words more often where nobody said them.
    """
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        words = ", ".join(word.strip() for word in value if word.strip())
        return read_text(f"Glossary: {words}." if words else "")
    return read_text(value)


def read_temperatures(value: object) -> tuple[float, ...]:
    """Accept one temperature, or a list of them for the fallback."""
    values = value if isinstance(value, list) else [value]
    # `bool` is excluded because it is a subclass of `int`.
    numbers = [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]
    if not 1 <= len(values) <= MAX_TEMPERATURES or numbers != values or not all(0 <= n <= 1 for n in numbers):
        raise ValueError
    return tuple(map(float, numbers))


def read_beam_size(value: object) -> int | None:
    """Accept a whole number of beams."""
    if value is None:
        return None
    number = read_whole_number(value)
    if not 1 <= number <= MAX_BEAM_SIZE:
        raise ValueError
    return number


def read_number(least: float, most: float) -> Callable[[object], float]:
    """Return a reader that accepts a number in this range."""

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError
        return float(value)

    return read


_PROMPT_TEXT = f"text of up to {MAX_PROMPT_CHARACTERS} characters without <|"
# By the option's name: the field of `Request`, its reader, and the allowed values as an error message lists them.
_OPTIONS: dict[str, tuple[str, Callable[[object], Any], str]] = {
    "language": ("language", read_language, "a language code, or null to detect it"),
    "languages": ("languages", read_languages, "a list of the language codes that detection may choose from"),
    "task": ("task", read_name(get_args(Task)), " or ".join(get_args(Task))),
    "prompt": ("prompt", read_text, _PROMPT_TEXT),
    "hotwords": ("hotwords", read_hotwords, f"{_PROMPT_TEXT}, or a list of words"),
    "prefix": ("prefix", read_text, _PROMPT_TEXT),
    "prefix_ms": ("prefix_ms", read_whole_number, "the length of the audio that the prefix covers, in ms"),
    "timestamps": ("timestamps", read_boolean, "true or false"),
    "words": ("words", read_words, 'true, false or "rough"'),
    "temperature": ("temperatures", read_temperatures, f"a number from 0 to 1, or a list of 1 to {MAX_TEMPERATURES}"),
    "beam_size": ("beam_size", read_beam_size, f"a whole number from 1 to {MAX_BEAM_SIZE}, or null"),
    "patience": ("patience", read_number(0.2, 4), "a number from 0.2 to 4"),
    "length_penalty": ("length_penalty", read_number(0, 1), "a number from 0 to 1"),
    "lane": ("lane", read_name(LANES), " or ".join(LANES)),
}


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _show_some(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
