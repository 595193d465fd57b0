"""Writes a checkpoint as a version of a Triton model repository."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx

from whisperline_models import graphs
from whisperline_models.engine.vocabulary import Vocabulary
from whisperline_models.errors import ExportError
from whisperline_models.hashing import sha256_of_file

if TYPE_CHECKING:
    from whisperline_models.checkpoint import Checkpoint

    Precision = Literal["float32", "int8"]

MODEL = "whisper"
WINDOWS_S = (12, 15, 20, 30)
_PACKAGE = Path(__file__).parent
_TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers")


def export_version(checkpoint: Checkpoint, repository: Path, version: int, precision: Precision) -> Path:
    """Write `<repository>/whisper/<version>/` and, where it is missing, `config.pbtxt`; returns the folder.

    The version is written beside, flushed to the disk and renamed into place: a half-written one is never
    seen. Raises `ExportError` where the version exists.
    """
    model = repository / MODEL
    target = model / str(version)
    if target.exists():
        raise ExportError(f"{target} exists: choose another --version, versions are never overwritten")
    model.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".whisper-", dir=repository) as scratch:
        written = Path(scratch) / "version"
        _write_version(checkpoint, written, precision)
        _flush(written)
        _install_config(model, Path(scratch))
        written.rename(target)
    _flush_folder(model)
    return target


def _write_version(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    folder.mkdir()
    vocabulary = Vocabulary.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    for name, graph in graphs.build(checkpoint, vocabulary, precision).items():
        onnx.save(graph, folder / f"{name}.onnx")
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)
    shutil.copyfile(_PACKAGE / "serving" / "model.py", folder / "model.py")
    shutil.copytree(_PACKAGE / "engine", folder / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "manifest.json").write_text(json.dumps(_manifest(checkpoint, folder, precision), indent=2) + "\n")


def _manifest(checkpoint: Checkpoint, folder: Path, precision: Precision) -> dict[str, object]:
    source = checkpoint.source
    return {
        "model": checkpoint.name,
        "source": {"kind": source.kind, "location": source.location, "sha256": source.sha256},
        "precision": precision,
        "windows_s": WINDOWS_S,
        "dimensions": vars(checkpoint.dimensions),
        "alignment_heads": checkpoint.alignment_heads,
        "tools": {"python": sys.version.split()[0], **{tool: metadata.version(tool) for tool in _TOOLS}},
        "files": {str(p.relative_to(folder)): sha256_of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }


def _install_config(model: Path, scratch: Path) -> None:
    if not (model / "config.pbtxt").exists():
        shutil.copyfile(_PACKAGE / "serving" / "config.pbtxt", scratch / "config.pbtxt")
        _flush(scratch)
        (scratch / "config.pbtxt").rename(model / "config.pbtxt")


def _flush(folder: Path) -> None:
    """Bring every file and folder under `folder` to the disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
