"""Weights are read as others store them, and refused if files are missing, damaged or of another model."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from reference_tools import transformers_folder
from reference_tools.shapes import SHAPES, random_checkpoint, with_layers
from safetensors.numpy import save_file
from typer.testing import CliRunner
from whisperline_models.cli import app
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import SourceError
from whisperline_models.weights import Checkpoint, Dimensions, ctranslate2, huggingface, load_checkpoint
from whisperline_models.weights.checkpoint import choose_alignment_heads, restore_first_merge

UPPER_HALF = {"large-v3-turbo": (2, 3), "distil-large-v3": (1,), "tiny.en": (2, 3)}


@pytest.mark.parametrize("name", UPPER_HALF)
def test_alignment_heads_are_the_later_half_where_none_are_named(name: str) -> None:
    """The default is the reference's: every head of the layers in the later half."""
    dims = SHAPES[name]
    later_half = tuple((layer, head) for layer in UPPER_HALF[name] for head in range(dims.n_text_head))
    assert choose_alignment_heads(None, dims) == later_half
    assert choose_alignment_heads([], dims) == later_half
    assert choose_alignment_heads([[1, 0]], dims) == ((1, 0),)


def test_the_heads_of_a_teacher_are_not_taken() -> None:
    """A distilled model that names heads in layers that it lacks gets the default."""
    pupil = SHAPES["distil-large-v3"]
    assert choose_alignment_heads([[7, 0], [10, 17], [1, 3]], pupil) == choose_alignment_heads(None, pupil)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read_off_weights_of_it(name: str, checkpoint: Checkpoint, multilingual: Checkpoint) -> None:
    """The dimensions of every official model are derived from its tensors, whatever the number of layers."""
    narrow = replace(with_layers(SHAPES[name], 2, 1), n_audio_state=64, n_text_state=64, n_audio_head=1, n_text_head=1)
    tokenizer = (checkpoint if name.endswith(".en") else multilingual).tokenizer_json
    drawn = random_checkpoint(name, narrow, tokenizer, seed=1)
    assert Dimensions.of(drawn.tensors, 1, 1) == narrow
    Tokenizer.from_json(drawn.tokenizer_json, narrow.n_vocab)


def test_a_merge_that_is_missing_is_put_back(multilingual: Checkpoint) -> None:
    """A tokenizer that lacks the merge of a space and "t" gets it; any other is not changed."""
    whole = multilingual.tokenizer_json
    assert restore_first_merge(whole) == whole
    damaged = json.loads(whole)
    first = damaged["model"]["merges"].pop(0)
    assert "".join(first).replace(" ", "") == "Ġt"
    restored = restore_first_merge(json.dumps(damaged).encode())
    assert json.loads(restored) == json.loads(whole)
    ids = tokenizers.Tokenizer.from_str(restored.decode()).encode(" two", add_special_tokens=False).ids
    assert [tokenizers.Tokenizer.from_str(restored.decode()).id_to_token(token) for token in ids] == ["Ġtwo"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_in_shards_is_read(
    dtype: type[np.generic], small: Checkpoint, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """16-bit weights in several shards are read as float32."""
    transformers_folder.save(small, tmp_path, tokenizer)
    whole = huggingface.load(tmp_path, "whole")
    (tmp_path / "model.safetensors").unlink()
    names = {ours: transformers_folder.transformers_name(ours) for ours in whole.tensors}
    shards = {"model-00001-of-00002.safetensors": "encoder.", "model-00002-of-00002.safetensors": "decoder."}
    for shard, part in shards.items():
        halves: dict[str, NDArray[np.generic]] = {
            names[ours]: tensor.astype(dtype) for ours, tensor in whole.tensors.items() if ours.startswith(part)
        }
        save_file(halves, tmp_path / shard, {"format": "pt"})
    index = {name: shard for shard, part in shards.items() for ours, name in names.items() if ours.startswith(part)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    halved = huggingface.load(tmp_path, "halved")
    for name, value in whole.tensors.items():
        assert halved.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(halved.tensors[name], value.astype(dtype).astype(np.float32))


def test_a_tokenizer_of_other_weights_is_refused(small: Checkpoint, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A tokenizer of another size is refused before the export, with an error that names the source."""
    transformers_folder.save(small, tmp_path, tokenizer)
    rows = {k: v[:-1] if k == "decoder.token_embedding.weight" else v for k, v in small.tensors.items()}
    transformers_folder.save(replace(small, tensors=rows), tmp_path, tokenizer)
    with pytest.raises(SourceError, match="it is not of these weights"):
        load_checkpoint(str(tmp_path), tmp_path)


def test_a_huggingface_folder_gives_the_same_weights(
    checkpoint: Checkpoint, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """A model written in `transformers`' format and read again has the same tensors, dimensions and heads."""
    transformers_folder.save(checkpoint, tmp_path, tokenizer)
    again = load_checkpoint(str(tmp_path), tmp_path)
    assert (again.dimensions, again.alignment_heads) == (checkpoint.dimensions, checkpoint.alignment_heads)
    assert again.tensors.keys() == checkpoint.tensors.keys()
    assert all(np.array_equal(again.tensors[name], checkpoint.tensors[name]) for name in again.tensors)


def test_other_weights_are_refused(checkpoint: Checkpoint, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Weights that do not have the given checksum are not exported."""
    transformers_folder.save(checkpoint, tmp_path, tokenizer)
    with pytest.raises(SourceError, match="sha256 is"):
        load_checkpoint(str(tmp_path), tmp_path, sha256="0" * 64)


@pytest.mark.parametrize("source", ["tiny.de", "./nowhere", "/nowhere/at/all"])
def test_an_unknown_source_is_named(source: str, tmp_path: Path) -> None:
    """The command fails with a line that lists the possible sources."""
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
    """A complete file gives the variables that were written; a file that ends early is refused."""
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
