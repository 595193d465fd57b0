"""Read Whisper weights from a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors) or from the hub."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes  # noqa: F401 - with it NumPy knows bfloat16, in which some weights are stored
import numpy as np
from safetensors import safe_open

from whisperline_models.errors import SourceError
from whisperline_models.files import sha256_of_file
from whisperline_models.weights.checkpoint import (
    Checkpoint,
    Dimensions,
    Source,
    choose_alignment_heads,
    restore_first_merge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# map names in `transformers` to those in openai-whisper: of positional embeddings, of the parts outside the blocks, and
# of the parts of a block
POSITIONS = {f"{part}.embed_positions.weight": f"{part}.positional_embedding" for part in ("encoder", "decoder")}
MODEL_PARTS = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
}
BLOCK_PARTS = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    **{
        f"{theirs}.{projection}": f"{ours}.{part}"
        for theirs, ours in (("self_attn", "attn"), ("encoder_attn", "cross_attn"))
        for projection, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"))
    },
}
_FETCHED = [  # the files to fetch from the hub, where a repository may also hold the weights in other formats
    *("config.json", "generation_config.json", "tokenizer.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
]


def load(folder: Path, name: str) -> Checkpoint:
    """Load a folder written by `save_pretrained` of `WhisperForConditionalGeneration` and of its tokenizer.

    Raises `SourceError`.
    """
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise SourceError(f"{folder} has no {file}: it is not a Hugging Face Whisper folder")
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "whisper":
        raise SourceError(f"{folder}: config.json is of a {config.get('model_type')!r} model, not of Whisper")
    paths = weight_files(folder)
    # for one file, its checksum, which the hub shows, too; for several shards, the checksum of their checksums
    checksums = [sha256_of_file(path) for path in paths]
    sha256 = checksums[0] if len(paths) == 1 else hashlib.sha256("".join(checksums).encode()).hexdigest()
    tensors = dict(_renamed(paths))
    dimensions = Dimensions.of(tensors, config["encoder_attention_heads"], config["decoder_attention_heads"])
    generation = folder / "generation_config.json"
    named_heads = json.loads(generation.read_text()).get("alignment_heads") if generation.is_file() else None
    return Checkpoint(
        name=name,
        source=Source("huggingface", str(folder), sha256),
        dimensions=dimensions,
        tensors=tensors,
        tokenizer_json=restore_first_merge((folder / "tokenizer.json").read_bytes()),
        alignment_heads=choose_alignment_heads(named_heads or config.get("alignment_heads"), dimensions),
    )


def download(repo_id: str, cache: Path) -> Path:
    """Fetch a snapshot from the hub and compare its weights with the checksums that the hub records.

    Returns the snapshot's folder. Raises `SourceError`.
    """
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - no other source needs the hub
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(repo_id, cache_dir=cache, allow_patterns=_FETCHED))
        paths = weight_files(folder)
        # the folder of a snapshot is named by its revision
        recorded = HfApi().get_paths_info(repo_id, [path.name for path in paths], revision=folder.name)
    except OSError as error:
        raise SourceError(f"cannot fetch {repo_id} from the hub: {error}") from error
    checksums = {file.path: file.lfs.sha256 for file in recorded if isinstance(file, RepoFile) and file.lfs}
    for path in paths:
        if path.name in checksums and sha256_of_file(path) != checksums[path.name]:
            raise SourceError(f"{path}: the checksum is not the hub's; remove the file and export again")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return `model.safetensors`, or the shards that its index names. Raises `SourceError` if there is neither."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise SourceError(f"{folder} has no model.safetensors: save the model in the safetensors format")
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def openai_name(name: str) -> str:
    """Return the openai-whisper name of a weight in `transformers`. Raises `KeyError` if it is not Whisper's."""
    name = name.removeprefix("model.")
    if name in POSITIONS:
        return POSITIONS[name]
    part, _, kind = name.rpartition(".")
    if part in MODEL_PARTS:
        return f"{MODEL_PARTS[part]}.{kind}"
    in_block = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(.+)", part)
    if in_block is None:
        raise KeyError(name)
    side, layer, inner = in_block.groups()
    return f"{side}.blocks.{layer}.{BLOCK_PARTS[inner]}.{kind}"


def _renamed(paths: Iterable[Path]) -> Iterable[tuple[str, NDArray[np.float32]]]:
    for path in paths:
        with safe_open(path, "numpy") as weights:  # tensor by tensor, so that a large model is not in memory twice
            for name in weights.keys():  # noqa: SIM118 - `weights` is not a mapping
                if name == "proj_out.weight":  # tied to the token embedding
                    continue
                try:
                    yield openai_name(name), weights.get_tensor(name).astype(np.float32)
                except KeyError as error:
                    raise SourceError(f"{path}: {name} is no weight of Whisper") from error
