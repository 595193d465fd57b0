"""Reads Whisper weights from a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors) or the hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401 - with it NumPy knows bfloat16, in which some weights are stored
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from whisperline_models.errors import SourceError
from whisperline_models.files import sha256_of_file
from whisperline_models.weights.checkpoint import Checkpoint, Dimensions, Source, alignment_heads, with_first_merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from whisperline_models.engine.tokenizer import Tokenizer

_FILES = ("config.json", "generation_config.json", "tokenizer.json")
_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")  # and no other precisions
_PLAIN = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.ln": "decoder.layer_norm",
    "decoder.token_embedding": "decoder.embed_tokens",
}
_POSITIONS = {f"{part}.positional_embedding": f"{part}.embed_positions.weight" for part in ("encoder", "decoder")}
_BLOCK = {
    "attn_ln": "self_attn_layer_norm",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    **{
        f"{ours}.{part}": f"{theirs}.{projection}"
        for ours, theirs in (("attn", "self_attn"), ("cross_attn", "encoder_attn"))
        for part, projection in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
    },
}
_PARTS_OF_BLOCK = {theirs: ours for ours, theirs in _BLOCK.items()}
_PARTS_OF_MODEL = {theirs: ours for ours, theirs in _PLAIN.items()}
_NAMES_OF_POSITIONS = {theirs: ours for ours, theirs in _POSITIONS.items()}


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
        tokenizer_json=with_first_merge((folder / "tokenizer.json").read_bytes()),
        alignment_heads=alignment_heads(_named_heads(folder, config), dimensions),
    )


def save(checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer) -> None:
    """Write a folder that `load` and `WhisperForConditionalGeneration.from_pretrained` read."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({their_name(k): v for k, v in checkpoint.tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(checkpoint.dimensions, tokenizer)))
    (folder / "generation_config.json").write_text(json.dumps(_generation_config(checkpoint, tokenizer)))
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)


def their_name(name: str) -> str:
    """The name of a weight in `transformers`."""
    if name in _POSITIONS:
        return f"model.{_POSITIONS[name]}"
    part, _, kind = name.rpartition(".")
    if part in _PLAIN:
        return f"model.{_PLAIN[part]}.{kind}"
    side, _, layer, inner = part.split(".", 3)
    return f"model.{side}.layers.{layer}.{_BLOCK[inner]}.{kind}"


def _our_name(name: str) -> str:
    """The reference's name for a weight; raises `KeyError` for what is none of Whisper's."""
    name = name.removeprefix("model.")
    if name in _NAMES_OF_POSITIONS:
        return _NAMES_OF_POSITIONS[name]
    part, _, kind = name.rpartition(".")
    if part in _PARTS_OF_MODEL:
        return f"{_PARTS_OF_MODEL[part]}.{kind}"
    side, layers, layer, inner = (part.split(".", 3) + [""] * 4)[:4]
    if layers != "layers":
        raise KeyError(name)
    return f"{side}.blocks.{layer}.{_PARTS_OF_BLOCK[inner]}.{kind}"


def _config(dims: Dimensions, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": dims.n_vocab,
        "num_mel_bins": dims.n_mels,
        "d_model": dims.n_audio_state,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_layers": dims.n_text_layer,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "decoder_start_token_id": tokenizer.sot,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot),
    }


def _generation_config(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    multilingual = {
        "lang_to_id": {f"<|{code}|>": token for code, token in tokenizer.languages.items()},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.special("translate")},
    }
    return {
        "alignment_heads": checkpoint.alignment_heads,
        "is_multilingual": tokenizer.is_multilingual,
        "decoder_start_token_id": tokenizer.sot,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.special("startofprev"),
        "max_length": checkpoint.dimensions.n_text_ctx,
        "max_initial_timestamp_index": 50,
        "use_cache": True,
        "suppress_tokens": tokenizer.suppress_tokens,
        "begin_suppress_tokens": tokenizer.suppress_blank,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot),
        **(multilingual if tokenizer.is_multilingual else {}),
    }


def download(repo_id: str, cache: Path) -> Path:
    """Fetch a snapshot from the hub and check its weights against the checksums that the hub records."""
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  # only this source needs the hub
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(repo_id, cache_dir=cache, allow_patterns=[*_FILES, *_WEIGHTS]))
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
        with safe_open(path, "numpy") as weights:  # read one by one: a large model is not held twice
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                if name == "proj_out.weight":  # the same as the token embedding
                    continue
                try:
                    yield _our_name(name), weights.get_tensor(name).astype(np.float32)
                except KeyError as error:
                    raise SourceError(f"{path}: {name} is no weight of Whisper") from error


def _named_heads(folder: Path, config: dict[str, Any]) -> list[list[int]] | None:
    """The alignment heads that the model's configuration names."""
    generation = folder / "generation_config.json"
    named = json.loads(generation.read_text()).get("alignment_heads") if generation.is_file() else None
    return named or config.get("alignment_heads")
