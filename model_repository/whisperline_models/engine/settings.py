"""The settings of a version: parameters of its `config.pbtxt`, read once when Triton loads it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ServingSettings:
    """The settings of one version, named as in `config.pbtxt`."""

    slots: int = 16  # rows that decode together
    threads: int = 0  # on a CPU, cores to use; 0 means all
    max_requests: int = 256  # that a lane may hold at once, waiting or in progress

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> ServingSettings:
        """Read the parameters in Triton's `model_config`. Raises `ValueError` that names an invalid one."""
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
