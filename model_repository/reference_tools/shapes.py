"""The dimensions of the official Whisper models, and random weights for sizes of which no real ones are available.

Source: `ModelDimensions` in the checkpoints of openai-whisper, and distil-whisper's models on the Hugging Face hub.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from whisperline_models.engine.tokenizer import N_TIMESTAMPS
from whisperline_models.weights.checkpoint import Checkpoint, Dimensions, Source, choose_alignment_heads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ENGLISH, MULTILINGUAL, CANTONESE = 51864, 51865, 51866  # sizes of the vocabulary; the last has a 100th language
_SHARPNESS = 2.0  # the spread of attention scores: random heads must distinguish frames, as trained ones do
_LOGIT_SPREAD = 3.0  # of random logits


def _shape(n_mels: int, state: int, n_audio_layer: int, n_text_layer: int, n_vocab: int) -> Dimensions:
    head = state // 64
    return Dimensions(n_mels, 1500, state, head, n_audio_layer, n_vocab, 448, state, head, n_text_layer)


SHAPES = {
    "tiny.en": _shape(80, 384, 4, 4, ENGLISH),
    "tiny": _shape(80, 384, 4, 4, MULTILINGUAL),
    "base.en": _shape(80, 512, 6, 6, ENGLISH),
    "base": _shape(80, 512, 6, 6, MULTILINGUAL),
    "small.en": _shape(80, 768, 12, 12, ENGLISH),
    "small": _shape(80, 768, 12, 12, MULTILINGUAL),
    "medium.en": _shape(80, 1024, 24, 24, ENGLISH),
    "medium": _shape(80, 1024, 24, 24, MULTILINGUAL),
    "large-v2": _shape(80, 1280, 32, 32, MULTILINGUAL),
    "large-v3": _shape(128, 1280, 32, 32, CANTONESE),
    "large-v3-turbo": _shape(128, 1280, 32, 4, CANTONESE),
    "distil-small.en": _shape(80, 768, 12, 4, ENGLISH),
    "distil-medium.en": _shape(80, 1024, 24, 2, ENGLISH),
    "distil-large-v2": _shape(80, 1280, 32, 2, MULTILINGUAL),
    "distil-large-v3": _shape(128, 1280, 32, 2, CANTONESE),
}


def with_layers(dimensions: Dimensions, n_audio_layer: int, n_text_layer: int) -> Dimensions:
    """Return the same dimensions with fewer layers, for a machine that cannot hold the whole model."""
    return replace(dimensions, n_audio_layer=n_audio_layer, n_text_layer=n_text_layer)


def random_checkpoint(name: str, dimensions: Dimensions, tokenizer_json: bytes, seed: int) -> Checkpoint:
    """Draw random weights whose outputs depend on the audio and on all previous tokens. A seed gives the same weights.

    `tokenizer_json` is that of any model of the same kind, English-only or multilingual.
    """
    random = np.random.default_rng(seed)
    return Checkpoint(
        name=name,
        source=Source("random", f"seed {seed}", ""),
        dimensions=dimensions,
        tensors={tensor: _draw(random, tensor, shape) for tensor, shape in _tensors(dimensions)},
        tokenizer_json=tokenizer_of_size(tokenizer_json, dimensions.n_vocab),
        alignment_heads=choose_alignment_heads(None, dimensions),
    )


def _tensors(dims: Dimensions) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of all weights, as in openai-whisper's `model.py`."""
    yield "encoder.positional_embedding", (dims.n_audio_ctx, dims.n_audio_state)
    yield from _linear("encoder.conv1", (dims.n_audio_state, dims.n_mels, 3))
    yield from _linear("encoder.conv2", (dims.n_audio_state, dims.n_audio_state, 3))
    for layer in range(dims.n_audio_layer):
        yield from _block(f"encoder.blocks.{layer}", dims.n_audio_state, ("attn",))
    yield from _linear("encoder.ln_post", (dims.n_audio_state,))
    yield "decoder.token_embedding.weight", (dims.n_vocab, dims.n_text_state)
    yield "decoder.positional_embedding", (dims.n_text_ctx, dims.n_text_state)
    for layer in range(dims.n_text_layer):
        yield from _block(f"decoder.blocks.{layer}", dims.n_text_state, ("attn", "cross_attn"))
    yield from _linear("decoder.ln", (dims.n_text_state,))


def _block(name: str, state: int, attentions: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for attention in attentions:
        for part in ("query", "value", "out"):
            yield from _linear(f"{name}.{attention}.{part}", (state, state))
        yield f"{name}.{attention}.key.weight", (state, state)
        yield from _linear(f"{name}.{attention}_ln", (state,))
    yield from _linear(f"{name}.mlp.0", (4 * state, state))
    yield from _linear(f"{name}.mlp.2", (state, 4 * state))
    yield from _linear(f"{name}.mlp_ln", (state,))


def _linear(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _draw(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    drawn = random.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return drawn * np.float32(0.1) + np.float32(name.endswith("weight"))
    gain = 1.0
    if name.endswith(("query.weight", "key.weight")):
        gain = _SHARPNESS**0.5
    if name == "decoder.token_embedding.weight":
        gain = _LOGIT_SPREAD
        drawn[-N_TIMESTAMPS:] *= np.float32(0.1)  # so that they are rarely chosen: transformers starts over at them
    if name == "decoder.positional_embedding":
        gain = shape[1] ** 0.5  # with a smaller gain, the audio outweighs the text, and one token is repeated
    return drawn * np.float32(gain / np.sqrt(drawn[0].size))


def tokenizer_of_size(tokenizer_json: bytes, n_vocab: int) -> bytes:
    """Return the tokenizer for a vocabulary of this size. Cantonese, in large-v3, shifts the ids of later tokens."""
    if n_vocab != CANTONESE:
        return tokenizer_json
    tokenizer = json.loads(tokenizer_json)
    added = tokenizer["added_tokens"]
    at = next(index for index, token in enumerate(added) if token["content"] == "<|su|>") + 1
    later = [{**token, "id": token["id"] + 1} for token in added[at:]]
    tokenizer["added_tokens"] = [*added[:at], {**added[at], "content": "<|yue|>"}, *later]
    return json.dumps(tokenizer).encode()
