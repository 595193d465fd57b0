"""A version folder is complete, describes itself, and computes what its weights define."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_tools.shapes import SHAPES, random_checkpoint, with_layers
from whisperline_models.errors import ExportError
from whisperline_models.export import export_version
from whisperline_models.export.graphs import build_encoder, encoder_pieces
from whisperline_models.export.onnx_builder import quantize_columns
from whisperline_models.files import sha256_of_file
from whisperline_models.manifest import file_checksums
from whisperline_models.weights import Checkpoint
from whisperline_models.weights.packages import PACKAGES


def test_a_version_tells_what_it_is(small: Checkpoint, tmp_path: Path) -> None:
    """The manifest names source, checksum, precision and tools, and every file with its checksum."""
    folder = export_version(small, tmp_path / "staged", "int8")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (folder, manifest["model"], manifest["precision"]) == (tmp_path / "staged", "tiny.en", "int8")
    assert manifest["source"]["sha256"] == PACKAGES["tiny.en"].sha256
    assert manifest["windows_s"] == [*np.arange(3, 28.5, 0.5), 30]
    assert {"python", "onnx", "onnxruntime"} <= set(manifest["tools"])
    listed = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"manifest.json"}
    assert manifest["files"] == {name: sha256_of_file(folder / name) for name in sorted(listed)}


def test_a_version_is_never_overwritten(small: Checkpoint, tmp_path: Path) -> None:
    """An export to an existing folder is refused and changes nothing."""
    target = tmp_path / "staged"
    before = file_checksums(export_version(small, target, "int8"))
    with pytest.raises(ExportError, match="exists: choose another --output"):
        export_version(small, target, "float32")
    assert file_checksums(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_serving_a_version_does_not_change_its_folder(small: Checkpoint, tmp_path: Path) -> None:
    """Python uses the compiled modules wherever the folder was copied to, and writes nothing beside them."""
    exported = export_version(small, tmp_path / "staged", "int8")
    folder = shutil.copytree(exported, tmp_path / "copied", copy_function=shutil.copyfile)
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import engine.transcription"
    subprocess.run([sys.executable, "-c", code], env={"PATH": os.defpath}, check=True)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before


def test_graphs_store_their_common_weights_once(exported: Path) -> None:
    """The decoder for beam search reads all its weights from the greedy decoder's file."""
    greedy, beams = (onnx.load(exported / f"{name}.onnx") for name in ("decoder", "beam_decoder"))
    stored = {tensor.name: tensor for tensor in greedy.graph.initializer}
    large = [tensor for tensor in beams.graph.initializer if len(tensor.raw_data) >= 1024]
    assert large
    assert all(tensor.raw_data == stored[tensor.name].raw_data for tensor in large)
    assert not (exported / "beam_decoder.weights").exists()


def test_an_export_that_fails_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Weights that lack a layer break the export: no version and no scratch folder are left."""
    broken = replace(checkpoint, tensors={k: v for k, v in checkpoint.tensors.items() if "blocks.2" not in k})
    with pytest.raises(KeyError):
        export_version(broken, tmp_path / "staged", "int8")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_in_pieces_gives_what_the_whole_one_gives(checkpoint: Checkpoint) -> None:
    """Nineteen layers are split into eight nearly equal pieces, and the keys and values are a ninth piece."""
    deep = random_checkpoint("tiny.en", with_layers(SHAPES["tiny.en"], 19, 1), checkpoint.tokenizer_json, seed=0)
    pieces = list(build_encoder(deep, n_pieces=encoder_pieces(deep, "float32")))
    layers = [sum(node.op_type == "MultiHeadAttention" for node in piece.graph.node) for piece in pieces]
    assert layers == [3, 3, 3, 2, 2, 2, 2, 2, 0]
    mel = np.random.default_rng(0).standard_normal((1, 80, 200), np.float32)
    (whole,) = build_encoder(deep)
    np.testing.assert_allclose(_last(pieces, mel), _last([whole], mel), rtol=0, atol=1e-4)


def _last(pieces: Sequence[onnx.ModelProto], state: NDArray[np.float32]) -> NDArray[np.float32]:
    for piece in pieces:
        session = onnxruntime.InferenceSession(piece.SerializeToString(), providers=["CPUExecutionProvider"])
        state = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: state})[0]
    return state


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(1e-4, 10))
def test_seven_bits_are_within_half_a_step(seed: int, spread: float) -> None:
    """With codes of 7 bits, each weight is off by at most half the step of its output channel."""
    weight = np.random.default_rng(seed).normal(0, spread, (64, 3)).astype(np.float32)
    codes, scales = quantize_columns(weight)
    assert np.abs(codes).max() <= 63
    assert np.all(np.abs(codes * scales - weight) <= scales * 0.5001)
