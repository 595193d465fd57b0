"""What a request asks for and what it gets: the shapes of `options` and `result` on Triton's interface."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .log_mel import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

MAX_SAMPLES = 30 * SAMPLE_RATE


class RequestError(ValueError):
    """A request that cannot be served, with the reason for its sender."""


@dataclass(frozen=True)
class Request:
    """Mono 16 kHz audio in -1..1 and how to decode it; `language` None means detect it."""

    audio: NDArray[np.float32]
    language: str | None = None
    timestamps: bool = False
    words: bool = False

    @classmethod
    def parse(cls, audio: NDArray[np.int16], options: bytes, languages: Collection[str]) -> Request:
        """Check one row of the interface; raises `RequestError`."""
        if not 1 <= audio.size <= MAX_SAMPLES:
            raise RequestError(f"audio has {audio.size} samples: send 1 to {MAX_SAMPLES} (30 s at 16 kHz)")
        fields = _parse_options(options)
        language = fields.get("language")
        if language is not None and language not in languages:
            raise RequestError(f"options.language: this model has no {language!r}, only {_some(languages)}")
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
    window_s: int
    model: str
    version: str

    def to_json(self) -> str:
        """The answer as the interface carries it."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


_OPTION_TYPES: dict[str, tuple[type, ...]] = {
    "language": (str, type(None)),
    "timestamps": (bool,),
    "words": (bool,),
}


def _parse_options(options: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(options)
    except ValueError as error:
        raise RequestError(f"options are not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError("options must be a JSON object")
    for name, value in fields.items():
        if name not in _OPTION_TYPES:
            raise RequestError(f"options.{name} is not known, only {_some(_OPTION_TYPES)}")
        if not isinstance(value, _OPTION_TYPES[name]):
            raise RequestError(f"options.{name}: {json.dumps(value)} has the wrong type")
    return fields


def _some(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
