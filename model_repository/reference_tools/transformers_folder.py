"""Write a checkpoint as a Hugging Face folder, which `whisperline_models.weights` and `transformers` can read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors.numpy import save_file
from whisperline_models.weights.huggingface import BLOCK_PARTS, MODEL_PARTS, POSITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from whisperline_models.engine.tokenizer import Tokenizer
    from whisperline_models.weights import Checkpoint

_POSITIONS, _MODEL_PARTS, _BLOCK_PARTS = (
    {ours: theirs for theirs, ours in names.items()} for names in (POSITIONS, MODEL_PARTS, BLOCK_PARTS)
)


def save(checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer) -> None:
    """Write `model.safetensors`, `config.json`, `generation_config.json` and `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {transformers_name(name): tensor for name, tensor in checkpoint.tensors.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)
    dims = checkpoint.dimensions
    tokens = {
        "decoder_start_token_id": tokenizer.sot,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot),
    }
    config = {
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
        **tokens,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generation = {
        "alignment_heads": checkpoint.alignment_heads,
        "is_multilingual": tokenizer.is_multilingual,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.special("startofprev"),
        "max_length": dims.n_text_ctx,
        "max_initial_timestamp_index": 50,
        "use_cache": True,
        "suppress_tokens": tokenizer.suppress_tokens,
        "begin_suppress_tokens": tokenizer.suppress_blank,
        **tokens,
    }
    if tokenizer.is_multilingual:
        generation["lang_to_id"] = {f"<|{code}|>": token for code, token in tokenizer.languages.items()}
        generation["task_to_id"] = {
            "transcribe": tokenizer.transcribe,
            "translate": tokenizer.special("translate"),
        }
    (folder / "generation_config.json").write_text(json.dumps(generation))


def transformers_name(name: str) -> str:
    """Return the name in `transformers` of a weight in openai-whisper. This is the inverse of `openai_name`."""
    if name in _POSITIONS:
        return f"model.{_POSITIONS[name]}"
    part, _, kind = name.rpartition(".")
    if part in _MODEL_PARTS:
        return f"model.{_MODEL_PARTS[part]}.{kind}"
    side, _, layer, inner = part.split(".", 3)
    return f"model.{side}.layers.{layer}.{_BLOCK_PARTS[inner]}.{kind}"
