"""Writes a checkpoint as a version that Triton can serve."""

from __future__ import annotations

import compileall
import json
import py_compile
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import ExportError
from whisperline_models.export import graphs
from whisperline_models.files import written_beside
from whisperline_models.manifest import MANIFEST, sums

if TYPE_CHECKING:
    from whisperline_models.export.graphs import Precision
    from whisperline_models.weights.checkpoint import Checkpoint


# lengths that windows may have: a processor saves with every half second (behind more than 28 s there is no room for
# silence), a GPU encodes windows of one length together
_WINDOWS_S = (*(half / 2 for half in range(6, 57)), 30.0)
_WINDOWS_ON_GPU_S = (3.0, 6.0, 10.0, 15.0, 20.0, 30.0)
_PACKAGE = Path(__file__).parents[1]
_TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers")


def export_version(checkpoint: Checkpoint, folder: Path, precision: Precision) -> Path:
    """Write a version of Triton's model `whisper` as `folder`, ready to be verified and published; returns it.

    It is written beside, flushed to the disk and renamed into place: a half-written one is never seen. Raises
    `ExportError` where `folder` exists.
    """
    try:
        with written_beside(folder, folder.parent) as written:
            _write_version(checkpoint, written, precision)
    except FileExistsError as error:
        raise ExportError(f"{folder} exists: choose another --output, versions are never overwritten") from error
    return folder


def _write_version(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    for name, graph in graphs.build(checkpoint, tokenizer, precision):
        # weights lie beside the graph: protobuf holds no more than 2 GB, and these are mapped, not read
        onnx.save(graph, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.weights")
        (folder / f"{name}.weights").chmod(0o644)  # onnx leaves it to its owner, but a version travels to other users
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)
    for name in ("model.py", "tracing.py", "config.pbtxt"):
        shutil.copyfile(_PACKAGE / "serving" / name, folder / name)
    shutil.copytree(_PACKAGE / "engine", folder / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    _compile(folder)
    (folder / MANIFEST).write_text(json.dumps(_manifest(checkpoint, folder, precision), indent=2) + "\n")


def _compile(folder: Path) -> None:
    """Put compiled modules in, checked by hash: else Python writes them, and Triton takes the version for changed.

    A changed version is loaded again with the next load of its model, which holds its weights twice for a while.
    """
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(folder, quiet=2, ddir="", invalidation_mode=checked)


def _manifest(checkpoint: Checkpoint, folder: Path, precision: Precision) -> dict[str, object]:
    source = checkpoint.source
    return {
        "model": checkpoint.name,
        "source": {"kind": source.kind, "location": source.location, "sha256": source.sha256},
        "precision": precision,
        "windows_s": _WINDOWS_ON_GPU_S if precision == "float16" else _WINDOWS_S,
        "encoder_pieces": graphs.encoder_pieces(checkpoint, precision),
        "dimensions": vars(checkpoint.dimensions),
        "alignment_heads": checkpoint.alignment_heads,
        "tools": {"python": sys.version.split()[0], **{tool: metadata.version(tool) for tool in _TOOLS}},
        "files": sums(folder),
    }
