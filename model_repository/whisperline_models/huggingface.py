"""Reads Whisper weights from a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors) or the hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from whisperline_models.checkpoint import Checkpoint, Dimensions, Source
from whisperline_models.errors import SourceError
from whisperline_models.hashing import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_FILES = ("config.json", "generation_config.json", "tokenizer.json")
_RENAMED = (
    ("model.", ""),
    ("embed_tokens.", "token_embedding."),
    ("embed_positions.weight", "positional_embedding"),
    ("layers.", "blocks."),
    ("self_attn_layer_norm.", "attn_ln."),
    ("encoder_attn_layer_norm.", "cross_attn_ln."),
    ("final_layer_norm.", "mlp_ln."),
    ("self_attn.", "attn."),
    ("encoder_attn.", "cross_attn."),
    ("q_proj.", "query."),
    ("k_proj.", "key."),
    ("v_proj.", "value."),
    ("out_proj.", "out."),
    ("fc1.", "mlp.0."),
    ("fc2.", "mlp.2."),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
)


def load(folder: Path, name: str) -> Checkpoint:
    """Load a folder as `WhisperForConditionalGeneration.save_pretrained` and the tokenizer write it."""
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise SourceError(f"{folder} has no {file}: it is not a Hugging Face Whisper folder")
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "whisper":
        raise SourceError(f"{folder}: config.json is of a {config.get('model_type')!r} model, not of Whisper")
    paths = weight_files(folder)
    tensors = dict(_rename(paths))
    dimensions = Dimensions.of(tensors, config["encoder_attention_heads"], config["decoder_attention_heads"])
    return Checkpoint(
        name=name,
        source=Source("huggingface", str(folder), sha256_of_files(paths)),
        dimensions=dimensions,
        tensors=tensors,
        tokenizer_json=(folder / "tokenizer.json").read_bytes(),
        alignment_heads=_alignment_heads(folder, config, dimensions),
    )


def download(repo_id: str, cache: Path) -> Path:
    """Fetch a snapshot from the hub and check its weights against the checksums that the hub records."""
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  # only this source needs the hub
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(repo_id, cache_dir=cache, allow_patterns=[*_FILES, "model*.safetensors*"]))
        paths = weight_files(folder)
        recorded = HfApi().get_paths_info(repo_id, [path.name for path in paths], revision=folder.name)
    except OSError as error:
        raise SourceError(f"cannot fetch {repo_id} from the hub: {error}") from error
    sums = {file.path: file.lfs.sha256 for file in recorded if isinstance(file, RepoFile) and file.lfs}
    for path in paths:
        if path.name in sums and sha256_of_file(path) != sums[path.name]:
            raise SourceError(f"{path}: the checksum is not the hub's; remove the file and export again")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """`model.safetensors`, or the shards that its index names."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise SourceError(f"{folder} has no model.safetensors: save the model in the safetensors format")
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def sha256_of_files(paths: Iterable[Path]) -> str:
    """The checksum of one file; of several, that of their checksums in order."""
    sums = [sha256_of_file(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _rename(paths: Iterable[Path]) -> Iterable[tuple[str, NDArray[np.float32]]]:
    for path in paths:
        for name, value in load_file(path).items():
            target = name
            for theirs, ours in _RENAMED:
                target = target.replace(theirs, ours)
            if target != "proj_out.weight":  # the same as the token embedding
                yield target, value.astype(np.float32)


def _alignment_heads(folder: Path, config: dict[str, Any], dims: Dimensions) -> tuple[tuple[int, int], ...]:
    """The heads that the model names; else all of the later half, as the reference does."""
    generation = folder / "generation_config.json"
    named = json.loads(generation.read_text()).get("alignment_heads") if generation.is_file() else None
    heads = named or config.get("alignment_heads")
    if heads:
        return tuple((int(layer), int(head)) for layer, head in heads)
    layers = range(dims.n_text_layer // 2, dims.n_text_layer)
    return tuple((layer, head) for layer in layers for head in range(dims.n_text_head))
