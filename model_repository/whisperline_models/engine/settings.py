"""The parameters of `config.pbtxt` that serving reads, once at load."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ServingSettings:
    """`slots` rows decode together; `threads` of ONNX Runtime (0: one a core); `max_requests` of a lane at once."""

    slots: int = 16
    threads: int = 0
    max_requests: int = 256

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> ServingSettings:
        """Read Triton's `model_config`; raises `ValueError` that names the wrong parameter."""
        parameters = json.loads(args["model_config"])["parameters"]
        settings = cls(**{f.name: _number(f.name, parameters.get(f.name), int(str(f.default))) for f in fields(cls)})
        for name in ("slots", "max_requests"):
            if not getattr(settings, name):
                raise ValueError(f"config.pbtxt: parameter {name} is 0, want at least 1")
        return settings


def _number(name: str, parameter: Mapping[str, str] | None, default: int) -> int:
    text = str(default) if parameter is None else parameter.get("string_value", "")
    if not text.isdecimal():
        raise ValueError(f"config.pbtxt: parameter {name} is {text!r}, want a whole number from 0")
    return int(text)
