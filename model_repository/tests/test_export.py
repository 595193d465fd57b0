"""What a version folder holds, and where the weights may come from."""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from reference_tools import transformers_folder
from reference_tools.shapes import SHAPES, random_checkpoint, with_layers
from typer.testing import CliRunner
from whisperline_models.cli import app
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import ExportError, SourceError
from whisperline_models.export import export_version
from whisperline_models.export.graphs import build_encoder, encoder_pieces
from whisperline_models.export.onnx_builder import quantize_columns
from whisperline_models.files import sha256_of_file
from whisperline_models.manifest import file_checksums
from whisperline_models.weights import Checkpoint, ctranslate2, load_checkpoint
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
    """An export to a folder that is there is refused and changes nothing."""
    target = tmp_path / "staged"
    before = file_checksums(export_version(small, target, "int8"))
    with pytest.raises(ExportError, match="exists: choose another --output"):
        export_version(small, target, "float32")
    assert file_checksums(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_serving_a_version_does_not_change_its_folder(small: Checkpoint, tmp_path: Path) -> None:
    """Python finds its modules compiled, wherever the folder was copied to, and writes nothing beside them."""
    exported = export_version(small, tmp_path / "staged", "int8")
    folder = shutil.copytree(exported, tmp_path / "copied", copy_function=shutil.copyfile)
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import engine.transcription"
    subprocess.run([sys.executable, "-c", code], env={"PATH": os.defpath}, check=True)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before


def test_an_export_that_fails_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Weights that lack a layer break the export: no version and no scratch folder are left."""
    broken = replace(checkpoint, tensors={k: v for k, v in checkpoint.tensors.items() if "blocks.2" not in k})
    with pytest.raises(KeyError):
        export_version(broken, tmp_path / "staged", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_huggingface_folder_gives_the_same_weights(
    checkpoint: Checkpoint, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Written as `transformers` writes it and read again, every tensor, size and head is the same."""
    transformers_folder.save(checkpoint, tmp_path, tokenizer)
    again = load_checkpoint(str(tmp_path), tmp_path)
    assert (again.dimensions, again.alignment_heads) == (checkpoint.dimensions, checkpoint.alignment_heads)
    assert again.tensors.keys() == checkpoint.tensors.keys()
    assert all(np.array_equal(again.tensors[name], checkpoint.tensors[name]) for name in again.tensors)


def test_other_weights_are_refused(checkpoint: Checkpoint, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """With a checksum given, weights of another one are not exported."""
    transformers_folder.save(checkpoint, tmp_path, tokenizer)
    with pytest.raises(SourceError, match="sha256 is"):
        load_checkpoint(str(tmp_path), tmp_path, sha256="0" * 64)


def test_an_encoder_in_pieces_gives_what_the_whole_one_gives(checkpoint: Checkpoint) -> None:
    """Nineteen layers are eight equal shares, as near as may be, and the keys and values have a piece of their own."""
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


@pytest.mark.parametrize("source", ["tiny.de", "./nowhere", "/nowhere/at/all"])
def test_an_unknown_source_is_named(source: str, tmp_path: Path) -> None:
    """The command fails with a line that says what would do."""
    result = CliRunner().invoke(app, ["export", source, "--output", str(tmp_path / "staged"), "--cache", str(tmp_path)])
    assert result.exit_code == 1
    assert "is no folder, no hub id" in " ".join(result.output.split())


def _variable(name: str, values: NDArray[Any]) -> bytes:
    codes = {np.dtype(np.float32): 0, np.dtype(np.int32): 3, np.dtype(np.float16): 4}
    data = values.tobytes()
    shape = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
    return _string(name) + shape + struct.pack("<BI", codes[values.dtype], len(data)) + data


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


@given(
    variables=st.dictionaries(
        st.text("abc/_", min_size=1, max_size=9),
        st.sampled_from([np.float32, np.int32, np.float16]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, max_side=4))
        ),
        max_size=4,
    ),
    cut=st.integers(0, 400),
)
def test_ctranslate2_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, NDArray[Any]], cut: int
) -> None:
    """What is written in the format comes back; a file that ends early is refused, never half read."""
    header = struct.pack("<I", 6) + _string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    data = header + b"".join(_variable(*item) for item in variables.items())
    path = tmp_path_factory.mktemp("ct2") / "model.bin"
    path.write_bytes(data)
    read = ctranslate2.read_variables(path)
    assert read.keys() == variables.keys()
    assert all(read[name].tobytes() == variables[name].tobytes() for name in read)
    if cut < len(data):
        path.write_bytes(data[:cut])
        with pytest.raises(SourceError):
            ctranslate2.read_variables(path)


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(1e-4, 10))
def test_seven_bits_are_within_half_a_step(seed: int, spread: float) -> None:
    """Each weight is off by at most half the step of its output, in codes of 7 bits."""
    weight = np.random.default_rng(seed).normal(0, spread, (64, 3)).astype(np.float32)
    codes, scales = quantize_columns(weight)
    assert np.abs(codes).max() <= 63
    assert np.all(np.abs(codes * scales - weight) <= scales * 0.5001)
