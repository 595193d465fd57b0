"""Write a checkpoint as a version: graphs, tokenizer, the code that serves it, and a manifest of all files."""

from __future__ import annotations

import compileall
import hashlib
import json
import py_compile
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import onnx.external_data_helper

from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import ExportError
from whisperline_models.export import graphs
from whisperline_models.files import atomic_folder
from whisperline_models.manifest import MANIFEST, file_checksums

if TYPE_CHECKING:
    from whisperline_models.export.graphs import Precision
    from whisperline_models.weights import Checkpoint

# The possible lengths of a window. On a CPU, every half second less saves time; above 28 s there is no room for the
# silence after the audio. On a GPU, windows of equal length are encoded together, so there are few lengths.
_WINDOWS_S = (*(half / 2 for half in range(6, 57)), 30.0)
_WINDOWS_ON_GPU_S = (3.0, 6.0, 10.0, 15.0, 20.0, 30.0)
_PACKAGE = Path(__file__).parents[1]
_LEAST_WEIGHT_BYTES = 1024  # smaller tensors, such as the shapes of operators, stay in the graph
_PAGE_BYTES = 4096  # a mapped file is read by pages
_TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers")


def export_version(checkpoint: Checkpoint, folder: Path, precision: Precision) -> Path:
    """Write a version of Triton's model `whisper` as `folder`, ready to be verified and published. Returns `folder`.

    The version appears whole or not at all. Raises `ExportError` if `folder` exists.
    """
    try:
        with atomic_folder(folder, folder.parent) as written:
            _write_graphs(checkpoint, written, precision)
            (written / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)
            for name in ("model.py", "tracing.py", "config.pbtxt"):
                shutil.copyfile(_PACKAGE / "serving" / name, written / name)
            shutil.copytree(_PACKAGE / "engine", written / "engine", ignore=shutil.ignore_patterns("__pycache__"))
            # Python would write compiled modules when the version is first served. Triton would then see changed files,
            # and reload the version, with its weights in memory twice for a while. So the version includes compiled
            # modules. Python validates them by the hash of their source, because a copy changes modification times.
            checked_hash = py_compile.PycInvalidationMode.CHECKED_HASH
            compileall.compile_dir(written, quiet=2, ddir="", invalidation_mode=checked_hash)
            source = checkpoint.source
            manifest = {
                "model": checkpoint.name,
                "source": {"kind": source.kind, "location": source.location, "sha256": source.sha256},
                "precision": precision,
                "windows_s": _WINDOWS_ON_GPU_S if precision == "float16" else _WINDOWS_S,
                "encoder_pieces": graphs.encoder_pieces(checkpoint, precision),
                "dimensions": vars(checkpoint.dimensions),
                "alignment_heads": checkpoint.alignment_heads,
                "tools": {"python": sys.version.split()[0], **{tool: metadata.version(tool) for tool in _TOOLS}},
                "files": file_checksums(written),
            }
            (written / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    except FileExistsError as error:
        raise ExportError(f"{folder} exists: choose another --output, versions are never overwritten") from error
    return folder


def _write_graphs(checkpoint: Checkpoint, folder: Path, precision: Precision) -> None:
    """Write each graph, with its weights in a file of their own: protobuf holds at most 2 GB, and a file can be mapped.

    Weights that an earlier graph has stay in that graph's file, so that the disk and the memory hold them once.
    """
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    written: dict[bytes, tuple[str, int]] = {}  # by its hash, the file and the offset of each weight
    for name, graph in graphs.build(checkpoint, tokenizer, precision):
        location = f"{name}.weights"
        with (folder / location).open("wb") as weights:
            for tensor in graph.graph.initializer:
                n_bytes = len(tensor.raw_data)
                if n_bytes < _LEAST_WEIGHT_BYTES:
                    continue
                digest = hashlib.sha256(tensor.raw_data).digest()
                if digest not in written:
                    weights.write(bytes(-weights.tell() % _PAGE_BYTES))
                    written[digest] = location, weights.tell()
                    weights.write(tensor.raw_data)
                onnx.external_data_helper.set_external_data(tensor, *written[digest], n_bytes)
                tensor.ClearField("raw_data")
        (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
        if not (folder / location).stat().st_size:
            (folder / location).unlink()
