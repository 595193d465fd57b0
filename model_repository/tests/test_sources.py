"""Weights as others store them: what is missing, and what is wrong, in the files of a checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from reference_tools import transformers_folder
from reference_tools.shapes import SHAPES, random_checkpoint, with_layers
from safetensors.numpy import save_file
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import SourceError
from whisperline_models.weights import Checkpoint, Dimensions, huggingface, load_checkpoint
from whisperline_models.weights.checkpoint import choose_alignment_heads, restore_first_merge

UPPER_HALF = {"large-v3-turbo": (2, 3), "distil-large-v3": (1,), "tiny.en": (2, 3)}


@pytest.mark.parametrize("name", UPPER_HALF)
def test_alignment_heads_are_the_later_half_where_none_are_named(name: str) -> None:
    """The reference's default: every head of the layers from the middle on."""
    dims = SHAPES[name]
    later_half = tuple((layer, head) for layer in UPPER_HALF[name] for head in range(dims.n_text_head))
    assert choose_alignment_heads(None, dims) == later_half
    assert choose_alignment_heads([], dims) == later_half
    assert choose_alignment_heads([[1, 0]], dims) == ((1, 0),)


def test_the_heads_of_a_teacher_are_not_the_pupils() -> None:
    """A distilled model that names layers which it does not have is taken to name none."""
    pupil = SHAPES["distil-large-v3"]
    assert choose_alignment_heads([[7, 0], [10, 17], [1, 3]], pupil) == choose_alignment_heads(None, pupil)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read_off_weights_of_it(name: str, checkpoint: Checkpoint, multilingual: Checkpoint) -> None:
    """Of every official size: sizes are found in the tensors, whatever the number of layers on either side."""
    narrow = replace(with_layers(SHAPES[name], 2, 1), n_audio_state=64, n_text_state=64, n_audio_head=1, n_text_head=1)
    tokenizer = (checkpoint if name.endswith(".en") else multilingual).tokenizer_json
    drawn = random_checkpoint(name, narrow, tokenizer, seed=1)
    assert Dimensions.of(drawn.tensors, 1, 1) == narrow
    Tokenizer.from_json(drawn.tokenizer_json, narrow.n_vocab)


def test_a_merge_that_is_missing_is_put_back(multilingual: Checkpoint) -> None:
    """Conversions of before 2024 encode " two" as a space and "two"; whole ones stay as they are."""
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
    """Weights in 16 bits, in the shards that an index names, come back as float32."""
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
    """A vocabulary of another size is an error that names the source, before anything is exported."""
    transformers_folder.save(small, tmp_path, tokenizer)
    rows = {k: v[:-1] if k == "decoder.token_embedding.weight" else v for k, v in small.tensors.items()}
    transformers_folder.save(replace(small, tensors=rows), tmp_path, tokenizer)
    with pytest.raises(SourceError, match="it is not of these weights"):
        load_checkpoint(str(tmp_path), tmp_path)
