"""The parameters of `config.pbtxt` that serving reads, once at load."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ServingSettings:
    """Rows that decode together, threads of ONNX Runtime, and requests that a lane may hold at once."""

    slots: int = 16
    threads: int = 0  # one for each core
    max_requests: int = 256

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> ServingSettings:
        """Read the parameters in Triton's `model_config`. Raises `ValueError` that names the wrong one."""
        parameters = json.loads(args["model_config"])["parameters"]
        values: dict[str, int] = {}
        for field in fields(cls):
            text = str(field.default)
            if field.name in parameters:
                text = parameters[field.name].get("string_value", "")
            if not text.isdecimal():
                raise ValueError(f"config.pbtxt: parameter {field.name} is {text!r}, want a whole number from 0")
            values[field.name] = int(text)
            if values[field.name] == 0 and field.name != "threads":
                raise ValueError(f"config.pbtxt: parameter {field.name} is 0, want at least 1")
        return cls(**values)
