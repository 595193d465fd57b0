"""Whisper's ONNX graphs, built from the weights: encoder, one step of the decoder, word alignment.

The architecture is that of openai-whisper's `model.py`. Shapes: B rows, T encoder frames of 20 ms, H heads of
D channels, S slots of the text cache, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from whisperline_models.engine.logit_filters import NEVER, filter_masks
from whisperline_models.export.onnx_builder import BOOL, FLOAT, FLOAT16, INT32, INT64, Arithmetic, GraphBuilder
from whisperline_models.export.spectrogram import build_spectrogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

    from whisperline_models.engine.tokenizer import Tokenizer
    from whisperline_models.weights.checkpoint import Checkpoint, Dimensions

    Precision = Literal["float32", "float16", "int8"]
_INT64_MAX = np.iinfo(np.int64).max
_MOST_PIECES = 8  # of the encoder's layers: a session each


@dataclass
class _Whisper:
    """The parts that encoder, decoder and aligner share, over one builder."""

    graph: GraphBuilder
    checkpoint: Checkpoint

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.checkpoint.tensors[name]

    def linear(self, x: str, name: str) -> str:
        bias = self.checkpoint.tensors.get(f"{name}.bias")
        return self.graph.linear(x, name, self.tensor(f"{name}.weight"), bias)

    def layer_norm(self, x: str, name: str, *, output: str | None = None) -> str:
        """Normalise under the weights of this name."""
        return self.graph.layer_norm(x, name, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), output=output)

    def query_key_value(self, x: str, name: str) -> str:
        """The three projections in one product: (..., 3 * state); the key has no bias."""
        parts = [self.tensor(f"{name}.{part}.weight") for part in ("query", "key", "value")]
        query_bias, value_bias = (self.tensor(f"{name}.{part}.bias") for part in ("query", "value"))
        bias = np.concatenate([query_bias, np.zeros_like(query_bias), value_bias])
        return self.graph.linear(x, f"{name}.qkv", np.concatenate(parts), bias)

    def mlp(self, x: str, block: str) -> str:
        hidden = self.linear(self.layer_norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")
        return self.graph.op("Add", x, self.linear(self.graph.fused("Gelu", hidden), f"{block}.mlp.2"))

    def heads(self, x: str, n_head: int) -> str:
        """(B, T, state) to (B, H, T, D)."""
        split = self.graph.op("Reshape", x, self.graph.integers(0, 0, n_head, -1))
        return self.graph.op("Transpose", split, perm=[0, 2, 1, 3])


# of the encoder, whose products have the many rows of a window, and of the decoder
_ARITHMETIC = {
    "float32": (Arithmetic.FLOAT32, Arithmetic.FLOAT32),
    "float16": (Arithmetic.FLOAT16, Arithmetic.FLOAT16),
    "int8": (Arithmetic.INT8, Arithmetic.INT8_ROWS),
}


def build(checkpoint: Checkpoint, tokenizer: Tokenizer, precision: Precision) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every graph of a version with its name, one after the other: all together, a large model's fill the memory."""
    many_rows, few_rows = _ARITHMETIC[precision]
    yield "spectrogram", build_spectrogram(checkpoint.dimensions.n_mels)
    for number, piece in enumerate(build_encoder(checkpoint, many_rows, encoder_pieces(checkpoint, precision))):
        yield f"encoder_{number}", piece
    yield "decoder", build_decoder(checkpoint, tokenizer, few_rows)
    yield "aligner", build_aligner(checkpoint, few_rows)


def encoder_pieces(checkpoint: Checkpoint, precision: Precision) -> int:
    """Into how many graphs the encoder is cut: between two of them, whoever has waited goes first.

    A processor takes long over a window; a GPU does not, and would take longer over more graphs.
    """
    return 1 if precision == "float16" else min(checkpoint.dimensions.n_audio_layer, _MOST_PIECES) + 1


def build_encoder(
    checkpoint: Checkpoint, arithmetic: Arithmetic = Arithmetic.FLOAT32, n_pieces: int = 1
) -> Iterator[onnx.ModelProto]:
    """The encoder in pieces, the last with the keys and values of the decoder's cross-attention, once a window.

    In: `mel` (B, n_mels, 2T) float32 of the first, `state` (B, T, state) of the others. Out: `next_state`; of the
    last `cross` (2L, B, H, T, D), the key and the value of each of L decoder layers in turn, and `hidden`
    (B, T, state). T may be any length up to the 30 s of the positional embedding.
    """
    dims = checkpoint.dimensions
    layers = np.arange(dims.n_audio_layer)
    # the keys and values weigh as much as several layers, and have a piece to themselves
    shares = [*np.array_split(layers, n_pieces - 1), []] if n_pieces > 1 else [layers]
    for number, share in enumerate(shares):
        graph = GraphBuilder(f"encoder_{number}", arithmetic)
        whisper = _Whisper(graph, checkpoint)
        shape: list[int | str] = ["B", "T", dims.n_audio_state]
        x = graph.input("state", graph.float, shape) if number else _hear(whisper)
        for layer in share:
            x = _encoder_block(whisper, x, f"encoder.blocks.{layer}")
        if number == n_pieces - 1:
            hidden = graph.output("hidden", graph.float, shape)
            _cross(whisper, whisper.layer_norm(x, "encoder.ln_post", output=hidden))
        else:
            graph.op("Identity", x, outputs=[graph.output("next_state", graph.float, shape)])
        yield graph.model()


def _hear(whisper: _Whisper) -> str:
    """From the spectrogram to the first state: two convolutions, and where in the window each frame is."""
    graph = whisper.graph
    mel = graph.cast(graph.input("mel", FLOAT, ["B", whisper.checkpoint.dimensions.n_mels, "2T"]), graph.float)
    x = graph.op("Transpose", mel, perm=[0, 2, 1])
    for name, stride in (("encoder.conv1", 1), ("encoder.conv2", 2)):
        x = graph.fused("Gelu", _convolve(whisper, x, name, stride))
    return graph.op("Add", x, _first_positions(whisper, x))


def _convolve(whisper: _Whisper, x: str, name: str, stride: int) -> str:
    """A convolution over three frames of `x` (B, T, channels), padded by one, as a product with their channels."""
    graph, weight = whisper.graph, whisper.tensor(f"{name}.weight")
    padded = graph.op("Pad", x, graph.integers(0, 1, 0, 0, 1, 0))
    ends = graph.integers(-2), graph.integers(-1), graph.integers(_INT64_MAX)
    axis, step = graph.integers(1), graph.integers(stride)
    taps = [graph.op("Slice", padded, graph.integers(tap), end, axis, step) for tap, end in enumerate(ends)]
    product = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    return graph.linear(graph.op("Concat", *taps, axis=2), name, product, whisper.tensor(f"{name}.bias"))


def _first_positions(whisper: _Whisper, x: str) -> str:
    """The first T rows of the encoder's positional embedding, T read off `x` (B, T, state)."""
    graph, name = whisper.graph, "encoder.positional_embedding"
    n_frames = graph.op("Shape", x, start=1, end=2)
    table = graph.parameter(name, whisper.tensor(name))
    return graph.op("Slice", table, graph.integers(0), n_frames, graph.integers(0))


def _encoder_block(whisper: _Whisper, x: str, block: str) -> str:
    graph, n_head = whisper.graph, whisper.checkpoint.dimensions.n_audio_head
    qkv = whisper.query_key_value(whisper.layer_norm(x, f"{block}.attn_ln"), f"{block}.attn")
    names = [f"{block}.{part}" for part in ("query", "key", "value")]
    sizes = graph.integers(*[whisper.checkpoint.dimensions.n_audio_state] * 3)
    graph.op("Split", qkv, sizes, outputs=names, axis=-1)
    attended = graph.fused("MultiHeadAttention", *names, num_heads=n_head)
    x = graph.op("Add", x, whisper.linear(attended, f"{block}.attn.out"))
    return whisper.mlp(x, block)


def _cross(whisper: _Whisper, hidden: str) -> None:
    """The keys and values of all decoder layers in one product."""
    graph, dims = whisper.graph, whisper.checkpoint.dimensions
    names = [f"decoder.blocks.{i}.cross_attn.{part}" for i in range(dims.n_text_layer) for part in ("key", "value")]
    weight = np.concatenate([whisper.tensor(f"{name}.weight") for name in names])
    zero = np.zeros(dims.n_text_state, np.float32)  # keys have no bias
    bias = np.concatenate([whisper.checkpoint.tensors.get(f"{name}.bias", zero) for name in names])
    joined = graph.linear(hidden, "cross", weight, bias)
    heads = graph.op("Reshape", joined, graph.integers(0, 0, len(names), dims.n_text_head, -1))
    shape: list[int | str] = [len(names), "B", dims.n_text_head, "T", dims.n_text_state // dims.n_text_head]
    graph.op("Transpose", heads, outputs=[graph.output("cross", graph.float, shape)], perm=[2, 0, 3, 1, 4])


def build_decoder(
    checkpoint: Checkpoint, tokenizer: Tokenizer, arithmetic: Arithmetic = Arithmetic.FLOAT32
) -> onnx.ModelProto:
    """One step of the decoder for B rows, each at its own position, with suppression and rules inside.

    In: `token` (B) int64, `position` (B) int32; the caches `key_i`, `value_i` (B, H, S, D), written in place
    where the output `present_..._i` is bound to the same buffer; the windows `cross_key_i`, `cross_value_i`
    (B, H, capacity, D) of which each row uses its first `n_frames` (B) int32, and their last frames
    `last_key_i`, `last_value_i` (B, 1, state); the row's constraints of `engine.logit_filters.LogitFilter`.
    Out: `logits` (B, V) before any rule; `chosen` (B) int64, the best token that the rules allow, and
    `logprob` (B), its logarithmic probability among those.
    """
    graph = GraphBuilder("decoder", arithmetic)
    whisper, dims = _Whisper(graph, checkpoint), checkpoint.dimensions
    token, position = graph.input("token", INT64, ["B"]), graph.input("position", INT32, ["B"])
    n_frames = graph.input("n_frames", INT32, ["B"])
    x = _embed(whisper, token, position)
    lengths = _Lengths.of(graph, position, n_frames, dims)
    for layer in range(dims.n_text_layer):
        x = _decoder_block(whisper, x, layer, lengths)
    x = graph.op("Squeeze", whisper.layer_norm(x, "decoder.ln"), graph.integers(1))
    logits = graph.output("logits", FLOAT, ["B", dims.n_vocab])
    projection = whisper.tensor("decoder.token_embedding.weight")
    if graph.float == FLOAT:
        graph.linear(x, "decoder.projection", projection, None, output=logits)
    else:
        graph.op("Cast", graph.linear(x, "decoder.projection", projection, None), outputs=[logits], to=FLOAT)
    choose(graph, logits, tokenizer)
    return graph.model()


@dataclass(frozen=True)
class _Lengths:
    """What `GroupQueryAttention` wants of each row: how much it may see, and the most of all rows."""

    tokens: tuple[str, str]
    frames: tuple[str, str]

    @classmethod
    def of(cls, graph: GraphBuilder, position: str, n_frames: str, dims: Dimensions) -> _Lengths:
        one = graph.scalar(np.int32(1))
        frames = graph.op("Sub", n_frames, one)
        if graph.float == FLOAT16:  # on a GPU the most there can be: a length from the step would end its capture
            most = (graph.scalar(np.int32(dims.n_text_ctx)), graph.scalar(np.int32(dims.n_audio_ctx)))
            return cls((position, most[0]), (frames, most[1]))
        max_tokens = graph.op("Add", graph.op("ReduceMax", position, keepdims=0), one)
        return cls((position, max_tokens), (frames, graph.op("ReduceMax", n_frames, keepdims=0)))


def _embed(whisper: _Whisper, token: str, position: str) -> str:
    """Token and position embedding: (B, 1, state)."""
    graph = whisper.graph
    names = ("decoder.token_embedding.weight", "decoder.positional_embedding")
    tables = [graph.parameter(name, whisper.tensor(name)) for name in names]
    embedded = [graph.op("Gather", table, index) for table, index in zip(tables, (token, position), strict=True)]
    return graph.op("Unsqueeze", graph.op("Add", *embedded), graph.integers(1))


def _decoder_block(whisper: _Whisper, x: str, layer: int, lengths: _Lengths) -> str:
    block = f"decoder.blocks.{layer}"
    qkv = whisper.query_key_value(whisper.layer_norm(x, f"{block}.attn_ln"), f"{block}.attn")
    attended = _attend(whisper, [qkv, "", ""], f"{layer}", lengths.tokens)
    x = whisper.graph.op("Add", x, whisper.linear(attended, f"{block}.attn.out"))
    query = whisper.linear(whisper.layer_norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query")
    state = whisper.checkpoint.dimensions.n_text_state
    names = [f"last_{part}_{layer}" for part in ("key", "value")]
    last = [whisper.graph.input(name, whisper.graph.float, ["B", 1, state]) for name in names]
    attended = _attend(whisper, [query, *last], f"cross_{layer}", lengths.frames)
    x = whisper.graph.op("Add", x, whisper.linear(attended, f"{block}.cross_attn.out"))
    return whisper.mlp(x, block)


def _attend(whisper: _Whisper, query_key_value: list[str], cache: str, lengths: tuple[str, str]) -> str:
    """Attention over a cache (`0` or `cross_0`, say) with a length per row.

    Cross-attention uses the same operator: it rewrites the window's last frame with its own value, and so
    sees exactly the row's frames, whatever the capacity of the buffer.
    """
    graph, dims = whisper.graph, whisper.checkpoint.dimensions
    kind, _, layer = cache.rpartition("_")
    shape: list[int | str] = ["B", dims.n_text_head, f"{kind}_capacity", dims.n_text_state // dims.n_text_head]
    names = [f"{kind}_{part}_{layer}".removeprefix("_") for part in ("key", "value")]
    caches = [graph.input(name, graph.float, shape) for name in names]
    outputs = [f"attended_{cache}", *(graph.output(f"present_{name}", graph.float, shape) for name in names)]
    heads = {"num_heads": dims.n_text_head, "kv_num_heads": dims.n_text_head}
    return graph.fused("GroupQueryAttention", *query_key_value, *caches, *lengths, outputs=outputs, **heads)


def choose(graph: GraphBuilder, logits: str, tokenizer: Tokenizer) -> None:
    """Greedy choice under the rules of the reference's `decoding.py`; `engine.logit_filters` states them in NumPy."""
    mask, timestamps = graph.input("mask", INT64, ["B"]), graph.input("timestamps", BOOL, ["B"])
    masks = graph.weight("filter_masks", filter_masks(tokenizer))
    masked = graph.op("Add", logits, graph.op("Gather", masks, mask))
    begin, end, axis = graph.integers(tokenizer.timestamp_begin), graph.integers(tokenizer.n_vocab), graph.integers(1)
    text = graph.op("Slice", masked, graph.integers(0), begin, axis)
    time = _within_bounds(graph, graph.op("Slice", masked, begin, end, axis), tokenizer)
    text_best, text_sum = _best_and_sum(graph, text)
    time_best, time_sum = _best_and_sum(graph, time)
    forced = graph.op("And", timestamps, graph.op("Greater", time_sum, text_best))
    is_time = graph.op("Or", forced, graph.op("Greater", time_best, text_best))
    text_id, time_id = (graph.op("ArgMax", part, axis=1, keepdims=0) for part in (text, time))
    ids = [graph.op("Add", time_id, begin), text_id]
    graph.op("Where", is_time, *ids, outputs=[graph.output("chosen", INT64, ["B"])])
    either = graph.op("Add", text_sum, graph.op("Softplus", graph.op("Sub", time_sum, text_sum)))
    total = graph.op("Where", forced, time_sum, either)
    best = graph.op("Where", is_time, time_best, text_best)
    graph.op("Sub", best, total, outputs=[graph.output("logprob", FLOAT, ["B"])])


def _best_and_sum(graph: GraphBuilder, logits: str) -> tuple[str, str]:
    """The largest of each row, and the logarithm of the sum of its exponentials: both (B)."""
    best = graph.op("ReduceMax", logits, axes=[1], keepdims=1)
    exponentials = graph.op("Exp", graph.op("Sub", logits, best))
    total = graph.op("ReduceSum", exponentials, graph.integers(1), keepdims=1)
    log_sum = graph.op("Add", best, graph.op("Log", total))
    return graph.op("Squeeze", best, graph.integers(1)), graph.op("Squeeze", log_sum, graph.integers(1))


def _within_bounds(graph: GraphBuilder, time: str, tokenizer: Tokenizer) -> str:
    """Forbid the timestamps outside `timestamp_from` to `timestamp_to` (B, 1), both allowed."""
    bounds = [graph.input(name, INT64, ["B", 1]) for name in ("timestamp_from", "timestamp_to")]
    ids = graph.weight("time_ids", np.arange(tokenizer.timestamp_begin, tokenizer.n_vocab)[None])
    outside = graph.op("Or", *(graph.op(k, ids, b) for k, b in zip(("Less", "Greater"), bounds, strict=True)))
    return graph.op("Where", outside, graph.scalar(NEVER), time)


def build_aligner(checkpoint: Checkpoint, arithmetic: Arithmetic = Arithmetic.FLOAT32) -> onnx.ModelProto:
    """The decoder over a whole text at once, for the attention of its alignment heads.

    In: `tokens` (1, N) int64 and the windows `cross_key_i`, `cross_value_i` (1, H, T, D), as far as the last
    layer that has an alignment head; of that the keys alone. Out: `weights` (heads, N, T), the softmax of the
    cross-attention.
    """
    graph = GraphBuilder("aligner", arithmetic)
    whisper = _Whisper(graph, checkpoint)
    tokens = graph.input("tokens", INT64, [1, "N"])
    x = _embed_sequence(whisper, tokens)
    heads = checkpoint.alignment_heads
    last = max(layer for layer, _ in heads)
    collected: list[str] = []
    for layer in range(last + 1):
        wanted = [head for of_layer, head in heads if of_layer == layer]
        x, weights = _attend_to_audio(whisper, _attend_to_text(whisper, x, layer), layer, goes_on=layer < last)
        if wanted:
            picked = graph.op("Gather", graph.op("Squeeze", weights, graph.integers(0)), graph.integers(*wanted))
            collected.append(picked)
    joined = graph.op("Concat", *collected, axis=0)
    graph.op("Cast", joined, outputs=[graph.output("weights", FLOAT, ["heads", "N", "T"])], to=FLOAT)
    return graph.model()


def _embed_sequence(whisper: _Whisper, tokens: str) -> str:
    graph = whisper.graph
    names = ("decoder.token_embedding.weight", "decoder.positional_embedding")
    embedding, positions = (graph.parameter(name, whisper.tensor(name)) for name in names)
    n_tokens = graph.op("Shape", tokens, start=1, end=2)
    first = graph.op("Slice", positions, graph.integers(0), n_tokens, graph.integers(0))
    return graph.op("Add", graph.op("Gather", embedding, tokens), first)


def _attend_to_text(whisper: _Whisper, x: str, layer: int) -> str:
    graph, dims, block = whisper.graph, whisper.checkpoint.dimensions, f"decoder.blocks.{layer}"
    qkv = whisper.query_key_value(whisper.layer_norm(x, f"{block}.attn_ln"), f"{block}.attn")
    names = [f"{block}.{part}" for part in ("query", "key", "value")]
    graph.op("Split", qkv, graph.integers(*[dims.n_text_state] * 3), outputs=names, axis=-1)
    attended = graph.fused("MultiHeadAttention", *names, num_heads=dims.n_text_head, unidirectional=1)
    return graph.op("Add", x, whisper.linear(attended, f"{block}.attn.out"))


def _attend_to_audio(whisper: _Whisper, x: str, layer: int, *, goes_on: bool) -> tuple[str, str]:
    """The rest of a block where it `goes_on`, and the weights (1, H, N, T) of its cross-attention."""
    graph, dims, block = whisper.graph, whisper.checkpoint.dimensions, f"decoder.blocks.{layer}"
    query = whisper.linear(whisper.layer_norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query")
    shape: list[int | str] = [1, dims.n_text_head, "T", dims.n_text_state // dims.n_text_head]
    key = graph.input(f"cross_key_{layer}", graph.float, shape)
    scale = graph.parameter("attention_scale", np.array((dims.n_text_state // dims.n_text_head) ** -0.5, np.float32))
    scores = graph.op("MatMul", whisper.heads(query, dims.n_text_head), graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    weights = graph.op("Softmax", graph.op("Mul", scores, scale), axis=-1)
    if not goes_on:
        return x, weights
    value = graph.input(f"cross_value_{layer}", graph.float, shape)
    joined = graph.op("Transpose", graph.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    attended = graph.op("Reshape", joined, graph.integers(0, 0, dims.n_text_state))
    x = graph.op("Add", x, whisper.linear(attended, f"{block}.cross_attn.out"))
    return whisper.mlp(x, block), weights
