"""Read Whisper weights from a CTranslate2 folder (`model.bin` of binary version 6, float32 or float16).

Source of the format: `python/ctranslate2/specs/model_spec.py` (`_serialize`) and `specs/whisper_spec.py`.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np

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
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_VERSION = 6
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_HEAD_STATE = 64  # every Whisper head has 64 channels

# maps names or prefixes of names in CTranslate2 to those in openai-whisper
_MODEL_NAMES = {
    "encoder/conv1/": "encoder.conv1.",
    "encoder/conv2/": "encoder.conv2.",
    "encoder/layer_norm/": "encoder.ln_post.",
    "decoder/layer_norm/": "decoder.ln.",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
}
# the same within a block; a variable with several targets holds their weights stacked
_BLOCK_NAMES = {
    "self_attention/layer_norm/": ("attn_ln.",),
    "self_attention/linear_0/": ("attn.query.", "attn.key.", "attn.value."),
    "self_attention/linear_1/": ("attn.out.",),
    "attention/layer_norm/": ("cross_attn_ln.",),
    "attention/linear_0/": ("cross_attn.query.",),
    "attention/linear_1/": ("cross_attn.key.", "cross_attn.value."),
    "attention/linear_2/": ("cross_attn.out.",),
    "ffn/layer_norm/": ("mlp_ln.",),
    "ffn/linear_0/": ("mlp.0.",),
    "ffn/linear_1/": ("mlp.2.",),
}


def load(folder: Path, name: str) -> Checkpoint:
    """Load a CTranslate2 folder (`model.bin`, `config.json`, `tokenizer.json`). Raises `SourceError`."""
    for file in ("model.bin", "config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise SourceError(f"{folder} has no {file}: it is not a CTranslate2 Whisper folder")
    variables = read_variables(folder / "model.bin")
    # scalars may have an integer type, because they are settings, such as the number of heads
    if any(value.dtype in (np.int8, np.int16) and value.ndim for value in variables.values()):
        raise SourceError(f"{folder}: quantised weights cannot be exported, convert to float16 or float32")
    n_heads = {}
    for part in ("encoder", "decoder"):
        if f"{part}/num_heads" in variables:
            n_heads[part] = int(variables[f"{part}/num_heads"].item())
        else:  # older conversions do not include it
            n_heads[part] = int(variables[f"{part}/position_encodings/encodings"].shape[1]) // _HEAD_STATE
    tensors = dict(_renamed(variables))
    dimensions = Dimensions.of(tensors, n_heads["encoder"], n_heads["decoder"])
    named_heads = json.loads((folder / "config.json").read_text()).get("alignment_heads")
    return Checkpoint(
        name=name,
        source=Source("ctranslate2", str(folder), sha256_of_file(folder / "model.bin")),
        dimensions=dimensions,
        tensors=tensors,
        tokenizer_json=restore_first_merge((folder / "tokenizer.json").read_bytes()),
        alignment_heads=choose_alignment_heads(named_heads, dimensions),
    )


def read_variables(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return all variables of a `model.bin` by name. Raises `SourceError` unless it is Whisper in version 6."""
    reader = _Reader(path.read_bytes())
    version, spec = reader.number("I"), reader.string()
    if (version, spec) != (_VERSION, "WhisperSpec"):
        raise SourceError(f"{path}: want WhisperSpec in version {_VERSION}, found {spec!r} in version {version}")
    reader.number("I")  # the revision of the spec
    return dict(reader.variable() for _ in range(reader.number("I")))


class _Reader:
    """Reads the parts of a `model.bin` in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = memoryview(data), 0

    def take(self, n_bytes: int) -> memoryview:
        if self.offset + n_bytes > len(self.data):
            raise SourceError("model.bin ends in the middle of a variable: fetch it again")
        self.offset += n_bytes
        return self.data[self.offset - n_bytes : self.offset]

    def number(self, code: str) -> int:
        """Read a little-endian number. `code` is its format, as in `struct`."""
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize(code)))
        return int(value)

    def string(self) -> str:
        return str(self.take(self.number("H")), "utf-8").rstrip("\0")

    def variable(self) -> tuple[str, NDArray[np.generic]]:
        name = self.string()
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = _DTYPES.get(self.number("B"))
        data = self.take(self.number("I"))
        if dtype is None:
            raise SourceError(f"model.bin: {name} has an unknown type")
        return name, np.frombuffer(data, dtype).reshape(shape)


def _renamed(variables: dict[str, NDArray[np.generic]]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the weights under their names in openai-whisper, without variables that are not weights."""
    for name, value in variables.items():
        # a name within a block looks like encoder/layer_3/ffn/linear_0/weight
        block, _, in_layer = name.partition("/layer_")
        layer, _, in_block = in_layer.partition("/")
        targets = [ours + name[len(theirs) :] for theirs, ours in _MODEL_NAMES.items() if name.startswith(theirs)]
        for theirs, ours in _BLOCK_NAMES.items():
            if in_block.startswith(theirs):
                targets = [f"{block}.blocks.{layer}.{part}{in_block[len(theirs) :]}" for part in ours]
        if not targets:
            continue
        for target, share in zip(targets, np.split(value, len(targets)), strict=True):
            if not target.endswith("key.bias"):  # zeros in CTranslate2, and absent in Whisper
                # CTranslate2 calls weight and bias of a layer norm gamma and beta
                yield target.replace("gamma", "weight").replace("beta", "bias"), share.astype(np.float32)
