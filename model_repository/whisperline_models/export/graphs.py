"""Whisper's ONNX graphs, built from the weights: encoder, one step of the decoder, word alignment.

The architecture is that of openai-whisper's `model.py`. Shapes: B rows, T encoder frames of 20 ms, H heads of
D channels, S positions of the text cache, V tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from whisperline_models.engine.logit_filters import NEVER, filter_masks
from whisperline_models.engine.requests import MAX_BEAM_SIZE
from whisperline_models.export.onnx_builder import (
    BOOL,
    FLOAT,
    FLOAT16,
    INT32,
    INT64,
    INT64_MAX,
    Arithmetic,
    GraphBuilder,
)
from whisperline_models.export.spectrogram import build_spectrogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

    from whisperline_models.engine.tokenizer import Tokenizer
    from whisperline_models.weights import Checkpoint

    Precision = Literal["float32", "float16", "int8"]

_MAX_LAYER_PIECES = 8  # each piece of the encoder is an ONNX Runtime session of its own

# An encoder product has one row per frame of a window, a decoder product one row per request. The decoder scales row by
# row, which is cheap there, and necessary: a text must not depend on the other requests in the batch.
_ENCODER_ARITHMETIC = {"float32": Arithmetic.FLOAT32, "float16": Arithmetic.FLOAT16, "int8": Arithmetic.INT8}
_DECODER_ARITHMETIC = {**_ENCODER_ARITHMETIC, "int8": Arithmetic.INT8_ROWS}


def build(checkpoint: Checkpoint, tokenizer: Tokenizer, precision: Precision) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield each graph of a version with its name, one at a time, because a large model's graphs fill the memory."""
    encoder, decoder = _ENCODER_ARITHMETIC[precision], _DECODER_ARITHMETIC[precision]
    yield "spectrogram", build_spectrogram(checkpoint.dimensions.n_mels)
    for number, piece in enumerate(build_encoder(checkpoint, encoder, encoder_pieces(checkpoint, precision))):
        yield f"encoder_{number}", piece
    yield "decoder", build_decoder(checkpoint, tokenizer, decoder)
    yield "beam_decoder", build_decoder(checkpoint, tokenizer, decoder, MAX_BEAM_SIZE)
    yield "aligner", build_aligner(checkpoint, decoder)


def encoder_pieces(checkpoint: Checkpoint, precision: Precision) -> int:
    """Return the number of graphs into which the encoder is cut.

    Between two of them, the engine can do more urgent work. This matters on a CPU, which takes long to encode a window.
    A GPU is fast, and would be slower with more graphs.
    """
    return 1 if precision == "float16" else min(checkpoint.dimensions.n_audio_layer, _MAX_LAYER_PIECES) + 1


def build_encoder(
    checkpoint: Checkpoint, arithmetic: Arithmetic = Arithmetic.FLOAT32, n_pieces: int = 1
) -> Iterator[onnx.ModelProto]:
    """Yield the encoder in pieces. The last also computes the keys and values of the decoder's cross-attention.

    Inputs: `mel` (B, n_mels, 2T) float32 for the first piece, `state` (B, T, state) for the others. Outputs:
    `next_state`; from the last piece instead `cross` (2L, B, H, T, D), which alternates the keys and the values of the
    L decoder layers, and `hidden` (B, T, state). T may be any length up to the 30 s of the positional embedding.
    """
    dims = checkpoint.dimensions
    layers = np.arange(dims.n_audio_layer)
    # The keys and values take as long as several layers, so they have a piece of their own.
    shares = [*np.array_split(layers, n_pieces - 1), []] if n_pieces > 1 else [layers]
    for number, share in enumerate(shares):
        graph = GraphBuilder(f"encoder_{number}", arithmetic)
        whisper = _Whisper(graph, checkpoint)
        shape: list[int | str] = ["B", "T", dims.n_audio_state]
        # Only the first piece takes the spectrogram; the others continue from the state of the previous piece.
        x = graph.input("state", graph.float, shape) if number else whisper.stem()
        for layer in share:
            block = f"encoder.blocks.{layer}"
            x = whisper.mlp(whisper.self_attention(x, block, dims.n_audio_head), block)
        if number < n_pieces - 1:
            graph.op("Identity", x, outputs=[graph.output("next_state", graph.float, shape)])
            yield graph.model()
            continue

        hidden = whisper.layer_norm(x, "encoder.ln_post", output=graph.output("hidden", graph.float, shape))
        # the keys and values of all decoder layers in one product
        names = [f"decoder.blocks.{i}.cross_attn.{part}" for i in range(dims.n_text_layer) for part in ("key", "value")]
        weight = np.concatenate([whisper.tensor(f"{name}.weight") for name in names])
        zero = np.zeros(dims.n_text_state, np.float32)  # keys have no bias
        bias = np.concatenate([checkpoint.tensors.get(f"{name}.bias", zero) for name in names])
        joined = graph.linear(hidden, "cross", weight, bias)
        heads = graph.op("Reshape", joined, graph.integers(0, 0, len(names), dims.n_text_head, -1))
        cross: list[int | str] = [len(names), "B", dims.n_text_head, "T", dims.n_text_state // dims.n_text_head]
        graph.op("Transpose", heads, outputs=[graph.output("cross", graph.float, cross)], perm=[2, 0, 3, 1, 4])
        yield graph.model()


def build_decoder(
    checkpoint: Checkpoint, tokenizer: Tokenizer, arithmetic: Arithmetic = Arithmetic.FLOAT32, n_beams: int = 1
) -> onnx.ModelProto:
    """Return one step of the decoder for B rows, each at its own position and with its own logit filter.

    Every `n_beams` rows attend to one of W windows, so B = W * n_beams. Only one copy of a window's keys and values is
    kept and read: to the operator, the beams are groups of heads that share them.

    Inputs:

    - `token` (B) int64 and `position` (B) int32
    - `key_i` and `value_i` (B, H, S, D), the caches of the text, updated in place if the output `present_key_i` or
      `present_value_i` is bound to the same buffer
    - `cross_key_i` and `cross_value_i` (W, H, capacity, D), the windows, of which each row uses the first `n_frames`
      (W) int32, and their last frames `last_key_i` and `last_value_i` (W, 1, state)
    - each row's filter: `mask`, `timestamps`, `timestamp_from` and `timestamp_to` (see `engine.logit_filters`)

    Outputs: the unfiltered `logits` (B, V); `chosen` (B) int64, the best token that the filter allows, and `logprob`
    (B), its log probability among the allowed tokens. With several beams, `chosen` and `logprob` (B, n_beams + 1) are
    those of the best tokens, the most probable first.
    """
    graph = GraphBuilder("decoder", arithmetic)
    whisper, dims = _Whisper(graph, checkpoint), checkpoint.dimensions
    token, position = graph.input("token", INT64, ["B"]), graph.input("position", INT32, ["B"])
    n_frames = graph.input("n_frames", INT32, ["W"])
    tables = [
        graph.parameter(name, whisper.tensor(name))
        for name in ("decoder.token_embedding.weight", "decoder.positional_embedding")
    ]
    embedded = [graph.op("Gather", table, index) for table, index in zip(tables, (token, position), strict=True)]
    x = graph.op("Unsqueeze", graph.op("Add", *embedded), graph.integers(1))  # (B, 1, state)

    # GroupQueryAttention takes the number of positions that each row may see, minus one, and the maximum over all rows.
    one = graph.scalar(np.int32(1))
    last_frame = graph.op("Sub", n_frames, one)
    if graph.float == FLOAT16:
        # A GPU replays a captured graph, in which a computed maximum cannot be captured: so use the largest possible.
        most_tokens, most_frames = graph.scalar(np.int32(dims.n_text_ctx)), graph.scalar(np.int32(dims.n_audio_ctx))
    else:
        most_tokens = graph.op("Add", graph.op("ReduceMax", position, keepdims=0), one)
        most_frames = graph.op("ReduceMax", n_frames, keepdims=0)

    for layer in range(dims.n_text_layer):
        block = f"decoder.blocks.{layer}"
        qkv = whisper.query_key_value(whisper.layer_norm(x, f"{block}.attn_ln"), f"{block}.attn")
        attended = whisper.cached_attention([qkv, "", ""], str(layer), position, most_tokens)
        x = graph.op("Add", x, whisper.linear(attended, f"{block}.attn.out"))
        query = whisper.linear(whisper.layer_norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query")
        names = [f"last_{part}_{layer}" for part in ("key", "value")]
        last = [graph.input(name, graph.float, ["W", 1, dims.n_text_state]) for name in names]
        # The operator always appends one position to its cache. Given the window's last frame again, it overwrites that
        # frame with the same value, and sees exactly the frames of the row, whatever the capacity of the buffer.
        if n_beams > 1:  # from rows (W * beams, 1, H * D) to groups of heads (W, 1, H * beams * D)
            query = whisper.regroup(query, (n_beams, dims.n_text_head), n_beams * dims.n_text_state)
        attended = whisper.cached_attention([query, *last], f"cross_{layer}", last_frame, most_frames, n_beams)
        if n_beams > 1:  # and back
            attended = whisper.regroup(attended, (dims.n_text_head, n_beams), dims.n_text_state)
        x = graph.op("Add", x, whisper.linear(attended, f"{block}.cross_attn.out"))
        x = whisper.mlp(x, block)

    x = graph.op("Squeeze", whisper.layer_norm(x, "decoder.ln"), graph.integers(1))
    logits = graph.output("logits", FLOAT, ["B", dims.n_vocab])
    projection = whisper.tensor("decoder.token_embedding.weight")  # tied to the token embedding
    if graph.float == FLOAT:
        graph.linear(x, "decoder.projection", projection, None, output=logits)
    else:
        graph.op("Cast", graph.linear(x, "decoder.projection", projection, None), outputs=[logits], to=FLOAT)
    add_choice(graph, logits, tokenizer, 1 if n_beams == 1 else n_beams + 1)
    return graph.model()


def add_choice(graph: GraphBuilder, logits: str, tokenizer: Tokenizer, n_best: int) -> None:
    """Add the choice of the best tokens under the logit filters, as `apply_filter` of the engine does it in NumPy.

    Text and timestamps are compared as two parts: if all timestamps together are more probable than any text token, a
    timestamp must be chosen.
    """
    mask, timestamps = graph.input("mask", INT64, ["B"]), graph.input("timestamps", BOOL, ["B"])
    masks = graph.weight("filter_masks", filter_masks(tokenizer))
    masked = graph.op("Add", logits, graph.op("Gather", masks, mask))
    begin, end, axis = graph.integers(tokenizer.timestamp_begin), graph.integers(tokenizer.n_vocab), graph.integers(1)
    text = graph.op("Slice", masked, graph.integers(0), begin, axis)

    # forbid timestamps outside the allowed range
    time = graph.op("Slice", masked, begin, end, axis)
    earliest, latest = (graph.input(name, INT64, ["B", 1]) for name in ("timestamp_from", "timestamp_to"))
    ids = graph.weight("time_ids", np.arange(tokenizer.timestamp_begin, tokenizer.n_vocab)[None])
    outside = graph.op("Or", graph.op("Less", ids, earliest), graph.op("Greater", ids, latest))
    time = graph.op("Where", outside, graph.scalar(NEVER), time)

    text_best, text_sum = _best_and_log_sum_exp(graph, text)
    time_best, time_sum = _best_and_log_sum_exp(graph, time)
    forced = graph.op("And", timestamps, graph.op("Greater", time_sum, text_best))
    # the sum of both parts, as log(exp(a) + exp(b)) = a + softplus(b - a)
    either = graph.op("Add", text_sum, graph.op("Softplus", graph.op("Sub", time_sum, text_sum)))
    total = graph.op("Where", forced, time_sum, either)
    if n_best > 1:
        # A forced timestamp forbids all text.
        text = graph.op("Where", graph.op("Unsqueeze", forced, axis), graph.scalar(NEVER), text)
        best, ids = f"best_{n_best}", graph.output("chosen", INT64, ["B", n_best])
        graph.op("TopK", graph.op("Concat", text, time, axis=1), graph.integers(n_best), outputs=[best, ids], axis=1)
        logprob = graph.output("logprob", FLOAT, ["B", n_best])
        graph.op("Sub", best, graph.op("Unsqueeze", total, axis), outputs=[logprob])
        return
    is_time = graph.op("Or", forced, graph.op("Greater", time_best, text_best))
    text_id, time_id = (graph.op("ArgMax", part, axis=1, keepdims=0) for part in (text, time))
    ids_by_part = [graph.op("Add", time_id, begin), text_id]
    graph.op("Where", is_time, *ids_by_part, outputs=[graph.output("chosen", INT64, ["B"])])

    best = graph.op("Where", is_time, time_best, text_best)
    graph.op("Sub", best, total, outputs=[graph.output("logprob", FLOAT, ["B"])])


def _best_and_log_sum_exp(graph: GraphBuilder, logits: str) -> tuple[str, str]:
    """Add the maximum of each row and the log of the sum of its exponentials. Returns the names of both, each (B)."""
    # the maximum is factored out of the sum, so that no exponential overflows
    best = graph.op("ReduceMax", logits, axes=[1], keepdims=1)
    exponentials = graph.op("Exp", graph.op("Sub", logits, best))
    total = graph.op("ReduceSum", exponentials, graph.integers(1), keepdims=1)
    log_sum = graph.op("Add", best, graph.op("Log", total))
    return graph.op("Squeeze", best, graph.integers(1)), graph.op("Squeeze", log_sum, graph.integers(1))


def build_aligner(checkpoint: Checkpoint, arithmetic: Arithmetic = Arithmetic.FLOAT32) -> onnx.ModelProto:
    """Return the decoder over N tokens at once, which reads a prompt, or aligns a text with its audio.

    Inputs: `tokens` (B, N) int64, and `cross_key_i`, `cross_value_i` (B, H, T, D) for each layer, of which the last
    takes only keys if it has alignment heads, and neither if it has none. Outputs: `key_i` and `value_i` (B, H, N, D),
    those of the text, as one step of the decoder for each token leaves them in its caches; and `weights`
    (B, heads, N, T), the softmax of the cross-attention of the alignment heads.
    """
    graph = GraphBuilder("aligner", arithmetic)
    whisper, dims = _Whisper(graph, checkpoint), checkpoint.dimensions
    tokens = graph.input("tokens", INT64, ["B", "N"])
    embedding, positions = (
        graph.parameter(name, whisper.tensor(name))
        for name in ("decoder.token_embedding.weight", "decoder.positional_embedding")
    )
    n_tokens = graph.op("Shape", tokens, start=1, end=2)
    first = graph.op("Slice", positions, graph.integers(0), n_tokens, graph.integers(0))
    x = graph.op("Add", graph.op("Gather", embedding, tokens), first)

    # The cross-attention is spelled out, because no fused operator returns its weights.
    n_head, n_channel = dims.n_text_head, dims.n_text_state // dims.n_text_head
    last_layer = dims.n_text_layer - 1
    collected: list[str] = []
    for layer in range(last_layer + 1):
        block = f"decoder.blocks.{layer}"
        x = whisper.self_attention(x, block, n_head, causal=True)
        for part in ("key", "value"):
            heads = graph.op("Reshape", f"{block}.{part}", graph.integers(0, 0, n_head, -1))
            cache = graph.output(f"{part}_{layer}", graph.float, ["B", n_head, "N", n_channel])
            graph.op("Transpose", heads, outputs=[cache], perm=[0, 2, 1, 3])
        wanted = [head for of_layer, head in checkpoint.alignment_heads if of_layer == layer]
        if layer == last_layer and not wanted:
            break  # what follows could no longer change a result
        query = whisper.linear(whisper.layer_norm(x, f"{block}.cross_attn_ln"), f"{block}.cross_attn.query")
        shape: list[int | str] = ["B", n_head, "T", n_channel]
        key = graph.input(f"cross_key_{layer}", graph.float, shape)
        scale = graph.parameter("attention_scale", np.array(n_channel**-0.5, np.float32))
        split = graph.op("Reshape", query, graph.integers(0, 0, n_head, -1))
        by_head = graph.op("Transpose", split, perm=[0, 2, 1, 3])
        scores = graph.op("MatMul", by_head, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
        weights = graph.op("Softmax", graph.op("Mul", scores, scale), axis=-1)
        if layer < last_layer:
            value = graph.input(f"cross_value_{layer}", graph.float, shape)
            joined = graph.op("Transpose", graph.op("MatMul", weights, value), perm=[0, 2, 1, 3])
            attended = graph.op("Reshape", joined, graph.integers(0, 0, dims.n_text_state))
            x = whisper.mlp(graph.op("Add", x, whisper.linear(attended, f"{block}.cross_attn.out")), block)
        if wanted:
            collected.append(graph.op("Gather", weights, graph.integers(*wanted), axis=1))
    joined = graph.op("Concat", *collected, axis=1)
    graph.op("Cast", joined, outputs=[graph.output("weights", FLOAT, ["B", "heads", "N", "T"])], to=FLOAT)
    return graph.model()


class _Whisper:
    """Adds Whisper's layers to one graph. Each method returns the name of its output."""

    def __init__(self, graph: GraphBuilder, checkpoint: Checkpoint) -> None:
        self.graph = graph
        self.checkpoint = checkpoint

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.checkpoint.tensors[name]

    def linear(self, x: str, name: str) -> str:
        bias = self.checkpoint.tensors.get(f"{name}.bias")
        return self.graph.linear(x, name, self.tensor(f"{name}.weight"), bias)

    def layer_norm(self, x: str, name: str, *, output: str | None = None) -> str:
        return self.graph.layer_norm(x, name, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), output=output)

    def mlp(self, x: str, block: str) -> str:
        hidden = self.linear(self.layer_norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")
        return self.graph.op("Add", x, self.linear(self.graph.fused("Gelu", hidden), f"{block}.mlp.2"))

    def query_key_value(self, x: str, name: str) -> str:
        """Add the three projections in one product: (..., 3 * state). The key has no bias."""
        parts = [self.tensor(f"{name}.{part}.weight") for part in ("query", "key", "value")]
        query_bias, value_bias = (self.tensor(f"{name}.{part}.bias") for part in ("query", "value"))
        bias = np.concatenate([query_bias, np.zeros_like(query_bias), value_bias])
        return self.graph.linear(x, f"{name}.qkv", np.concatenate(parts), bias)

    def self_attention(self, x: str, block: str, n_head: int, *, causal: bool = False) -> str:
        """Add the self-attention of a block over a whole sequence `x` (B, T, state)."""
        qkv = self.query_key_value(self.layer_norm(x, f"{block}.attn_ln"), f"{block}.attn")
        names = [f"{block}.{part}" for part in ("query", "key", "value")]
        n_state = self.tensor(f"{block}.attn.query.weight").shape[0]
        self.graph.op("Split", qkv, self.graph.integers(*[n_state] * 3), outputs=names, axis=-1)
        if causal:
            attended = self.graph.fused("MultiHeadAttention", *names, num_heads=n_head, unidirectional=1)
        else:
            attended = self.graph.fused("MultiHeadAttention", *names, num_heads=n_head)
        return self.graph.op("Add", x, self.linear(attended, f"{block}.attn.out"))

    def regroup(self, x: str, groups: tuple[int, int], width: int) -> str:
        """Swap the beams and the heads of `x`, whose channels are laid out as `groups`. Returns (..., 1, width)."""
        graph = self.graph
        n_channel = self.checkpoint.dimensions.n_text_state // self.checkpoint.dimensions.n_text_head
        split = graph.op("Reshape", x, graph.integers(-1, *groups, n_channel))
        return graph.op("Reshape", graph.op("Transpose", split, perm=[0, 2, 1, 3]), graph.integers(-1, 1, width))

    def cached_attention(self, query_key_value: list[str], cache: str, last: str, most: str, n_beams: int = 1) -> str:
        """Add attention over a cache, named for example `0` or `cross_0`.

        With `n_beams`, the query has that many groups of heads, which share the cache. `last` (B or W) is the index of
        the last position that a row may see, where its new key and value are written. `most` is a scalar, the largest
        number of positions that any row may see.
        """
        dims = self.checkpoint.dimensions
        kind, _, layer = cache.rpartition("_")
        batch = "W" if kind else "B"
        shape: list[int | str] = [batch, dims.n_text_head, f"{kind}_capacity", dims.n_text_state // dims.n_text_head]
        names = [f"{kind}_{part}_{layer}".removeprefix("_") for part in ("key", "value")]
        caches = [self.graph.input(name, self.graph.float, shape) for name in names]
        presents = [self.graph.output(f"present_{name}", self.graph.float, shape) for name in names]
        return self.graph.fused(
            "GroupQueryAttention",
            *query_key_value,
            *caches,
            last,
            most,
            outputs=[f"attended_{cache}", *presents],
            num_heads=n_beams * dims.n_text_head,
            kv_num_heads=dims.n_text_head,
        )

    def stem(self) -> str:
        """Add the layers from the spectrogram to the first state: two convolutions and the positional embedding.

        Each convolution over three frames is expressed as a matrix product, so that it can run in int8.
        """
        graph = self.graph
        mel = graph.cast(graph.input("mel", FLOAT, ["B", self.checkpoint.dimensions.n_mels, "2T"]), graph.float)
        x = graph.op("Transpose", mel, perm=[0, 2, 1])
        for name, stride in (("encoder.conv1", 1), ("encoder.conv2", 2)):
            weight = self.tensor(f"{name}.weight")
            # each of the three taps is the padded sequence, shifted by one frame and thinned by the stride
            padded = graph.op("Pad", x, graph.integers(0, 1, 0, 0, 1, 0))
            ends = graph.integers(-2), graph.integers(-1), graph.integers(INT64_MAX)
            axis, step = graph.integers(1), graph.integers(stride)
            taps = [graph.op("Slice", padded, graph.integers(tap), end, axis, step) for tap, end in enumerate(ends)]
            product = weight.transpose(0, 2, 1).reshape(len(weight), -1)
            joined = graph.op("Concat", *taps, axis=2)
            x = graph.fused("Gelu", graph.linear(joined, name, product, self.tensor(f"{name}.bias")))

        # Add the first T rows of the positional embedding; T is the length of `x` (B, T, state).
        name = "encoder.positional_embedding"
        n_frames = graph.op("Shape", x, start=1, end=2)
        table = graph.parameter(name, self.tensor(name))
        positions = graph.op("Slice", table, graph.integers(0), n_frames, graph.integers(0))
        return graph.op("Add", x, positions)
