"""The parameters of `config.pbtxt` that serving reads, once at load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ServingSettings:
    """`threads` of ONNX Runtime (0: one a core); `max_batch` rows decode together."""

    threads: int
    max_batch: int

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> ServingSettings:
        """Read Triton's `model_config`; raises `ValueError` that names the wrong parameter."""
        config = json.loads(args["model_config"])
        text = config["parameters"].get("threads", {}).get("string_value", "0")
        if not text.isdecimal():
            raise ValueError(f"config.pbtxt: parameter threads is {text!r}, want a whole number from 0")
        return cls(int(text), max(1, int(config["max_batch_size"])))
