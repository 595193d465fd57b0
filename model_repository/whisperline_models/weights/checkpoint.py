"""A Whisper checkpoint in memory: its dimensions, its weights under openai-whisper's names, and its tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of a Whisper model, under the names of openai-whisper's `ModelDimensions`."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @classmethod
    def of(cls, tensors: Tensors, n_audio_head: int, n_text_head: int) -> Dimensions:
        """Derive the dimensions from the shapes of the weights, except the numbers of heads, which they do not show."""
        # the positional embeddings are (positions, channels)
        audio, text = tensors["encoder.positional_embedding"], tensors["decoder.positional_embedding"]
        n_layers = {
            part: len({name.split(".")[2] for name in tensors if name.startswith(f"{part}.blocks.")})
            for part in ("encoder", "decoder")
        }
        return cls(
            n_mels=tensors["encoder.conv1.weight"].shape[1],
            n_audio_ctx=audio.shape[0],
            n_audio_state=audio.shape[1],
            n_audio_head=n_audio_head,
            n_audio_layer=n_layers["encoder"],
            n_vocab=tensors["decoder.token_embedding.weight"].shape[0],
            n_text_ctx=text.shape[0],
            n_text_state=text.shape[1],
            n_text_head=n_text_head,
            n_text_layer=n_layers["decoder"],
        )


@dataclass(frozen=True)
class Source:
    """The origin of weights, for the manifest. `sha256` is the checksum of the weights' bytes."""

    kind: str
    location: str
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A model, with everything that an export needs.

    `tensors` are float32 under the names of openai-whisper's `model.py`. `tokenizer_json` is the file of the
    `tokenizers` library. `alignment_heads` are (layer, head) pairs of the decoder's cross-attention.
    """

    name: str
    source: Source
    dimensions: Dimensions
    tensors: Tensors
    tokenizer_json: bytes
    alignment_heads: tuple[tuple[int, int], ...]


def choose_alignment_heads(
    named: Iterable[Sequence[int]] | None, dimensions: Dimensions
) -> tuple[tuple[int, int], ...]:
    """Return the (layer, head) pairs that a model names, else every head of the decoder's later half.

    That default is openai-whisper's. A distilled model may name the heads of its teacher, some in layers that it does
    not have. Such a list is ignored.
    """
    heads = tuple((int(layer), int(head)) for layer, head in named or ())
    n_layer, n_head = dimensions.n_text_layer, dimensions.n_text_head
    # if any head is out of range, the list is the teacher's
    if heads and all(layer < n_layer and head < n_head for layer, head in heads):
        return heads
    return tuple((layer, head) for layer in range(n_layer // 2, n_layer) for head in range(n_head))


def restore_first_merge(tokenizer_json: bytes) -> bytes:
    """Return the tokenizer with the merge of a space and "t", which conversions made before March 2024 lack.

    Without it " two" is encoded as " " and "two", which is not how the model was trained (transformers #29368).
    """
    tokenizer = json.loads(tokenizer_json)
    merges = tokenizer["model"]["merges"]
    first = ["Ġ", "t"] if merges and isinstance(merges[0], list) else "Ġ t"  # the file has either form
    if not merges or first in merges:
        return tokenizer_json
    merges.insert(0, first)
    return json.dumps(tokenizer, ensure_ascii=False).encode()
