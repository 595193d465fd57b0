"""ONNX Runtime sessions over a version folder, and what its manifest says of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

GRAPHS = ("encoder", "decoder", "aligner")


@dataclass(frozen=True)
class ModelSpec:
    """The part of a version's `manifest.json` that decoding depends on."""

    name: str
    windows_s: tuple[int, ...]
    n_mels: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_vocab: int

    @classmethod
    def read(cls, folder: Path) -> ModelSpec:
        """Read a version folder."""
        manifest = json.loads((folder / "manifest.json").read_text())
        fields = {k: manifest["dimensions"][k] for k in cls.__dataclass_fields__ if k in manifest["dimensions"]}
        return cls(name=manifest["model"], windows_s=tuple(manifest["windows_s"]), **fields)


@dataclass(frozen=True)
class Sessions:
    """One session a graph."""

    encoder: onnxruntime.InferenceSession
    decoder: onnxruntime.InferenceSession
    aligner: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, threads: int) -> Sessions:
        """Open the graphs of a version; `threads` 0 means one thread a core."""
        return cls(*(_open(folder / f"{graph}.onnx", threads) for graph in GRAPHS))


def _open(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that spin for work take the processor from other programs, and where it is full from each other
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=_providers())


def _providers() -> list[Any]:
    available = onnxruntime.get_available_providers()
    return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
