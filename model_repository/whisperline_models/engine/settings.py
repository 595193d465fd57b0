"""The settings of a version: parameters of its `config.pbtxt`, read once when Triton loads it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .requests import MAX_BEAM_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .requests import Lane


@dataclass(frozen=True)
class ServingSettings:
    """The settings of one version, named as in `config.pbtxt`."""

    slots: int = 16  # rows that decode together
    threads: int = 0  # on a CPU, cores to use; 0 means all
    max_requests: int = 256  # that a lane may hold at once, waiting or in progress
    # Hypotheses of beam search in each lane, where a request does not say; 1 decodes greedily.
    beam_size_final: int = 1
    beam_size_partial: int = 1
    beam_size_file: int = 5

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
            if field.name.startswith("beam_size") and values[field.name] > MAX_BEAM_SIZE:
                raise ValueError(f"config.pbtxt: parameter {field.name} is {text}, want at most {MAX_BEAM_SIZE}")
        return cls(**values)

    @property
    def beam_sizes(self) -> dict[Lane, int]:
        """The size of the beam in each lane."""
        return {"final": self.beam_size_final, "partial": self.beam_size_partial, "file": self.beam_size_file}
