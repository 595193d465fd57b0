from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from whisperline_models.engine import logit_filters
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.export import graphs
from whisperline_models.export.onnx_builder import FLOAT, GraphBuilder


def reference(logits: NDArray[np.float32], tokens: list[int], timed: bool, tokenizer: Tokenizer) -> NDArray[np.float32]:
    """The logit filters of the reference's `decoding.py`, one after the other, as it states them."""
    logits, begin = logits.copy(), tokenizer.timestamp_begin
    if not tokens:
        logits[list(tokenizer.suppress_blank)] = -np.inf
    logits[list(tokenizer.suppress_tokens)] = -np.inf
    if not timed:
        return logits
    logits[tokenizer.no_timestamps] = -np.inf
    last_was_timestamp = len(tokens) >= 1 and tokens[-1] >= begin
    penultimate_was_timestamp = len(tokens) < 2 or tokens[-2] >= begin
    if last_was_timestamp:
        if penultimate_was_timestamp:
            logits[begin:] = -np.inf
        else:
            logits[: tokenizer.eot] = -np.inf
    timestamps = [token for token in tokens if token >= begin]
    if timestamps:
        keeps_last = last_was_timestamp and not penultimate_was_timestamp
        logits[begin : timestamps[-1] + (0 if keeps_last else 1)] = -np.inf
    if not tokens:
        logits[:begin] = -np.inf
        logits[begin + 50 + 1 :] = -np.inf
    shifted = logits - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    with np.errstate(divide="ignore"):
        if np.log(np.exp(logprobs[begin:]).sum()) > logprobs[:begin].max():
            logits[:begin] = -np.inf
    return logits


TEXT = st.integers(300, 2000)
STAMP = st.integers(0, 1499)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Sequences that the rules themselves allow: stamps in pairs around text, cut anywhere."""
    stamps = sorted(draw(st.lists(STAMP, min_size=1, max_size=6, unique=True)))
    tokens: list[tuple[str, int]] = []
    for start, end in zip(stamps, [s + 1 for s in stamps], strict=True):
        tokens += [("stamp", start), *(("text", t) for t in draw(st.lists(TEXT, min_size=1, max_size=3)))]
        tokens.append(("stamp", end))
    return tokens[: draw(st.integers(0, len(tokens)))]


def tokens_of(history: list[tuple[str, int]], timed: bool, tokenizer: Tokenizer) -> list[int]:
    if not timed:
        return [value for kind, value in history if kind == "text"]
    return [value + (tokenizer.timestamp_begin if kind == "stamp" else 0) for kind, value in history]


@settings(deadline=None, max_examples=60)
@given(history=histories(), timed=st.booleans(), seed=st.integers(0, 2**32 - 1), bias=st.floats(-6, 6))
def test_rules_are_the_references(
    tokenizer: Tokenizer, history: list[tuple[str, int]], timed: bool, seed: int, bias: float
) -> None:
    """Our constraints forbid exactly the tokens that the reference's filters forbid."""
    tokens = tokens_of(history, timed, tokenizer)
    logits = np.random.default_rng(seed).normal(0, 3, tokenizer.n_vocab).astype(np.float32)
    logits[tokenizer.timestamp_begin :] += bias
    constraint = logit_filters.next_filter(tokens, timestamps=timed, tokenizer=tokenizer)
    ours = logit_filters.apply_filter(logits, constraint, logit_filters.filter_masks(tokenizer), tokenizer)
    allowed = np.isfinite(reference(logits, tokens, timed, tokenizer))
    np.testing.assert_array_equal(ours > logit_filters.NEVER / 2, allowed)


@pytest.fixture(scope="module")
def choose(tokenizer: Tokenizer) -> onnxruntime.InferenceSession:
    graph = GraphBuilder("choose")
    graphs.add_choice(graph, graph.input("logits", FLOAT, ["B", tokenizer.n_vocab]), tokenizer, n_best=1)
    return onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.tuples(histories(), st.booleans(), st.floats(-6, 6)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_graph_chooses_by_the_same_rules(
    tokenizer: Tokenizer,
    choose: onnxruntime.InferenceSession,
    rows: list[tuple[list[tuple[str, int]], bool, float]],
    seed: int,
) -> None:
    """The decoder's graph picks the best token that the rules allow, with its probability among those."""
    logits = np.random.default_rng(seed).normal(0, 3, (len(rows), tokenizer.n_vocab)).astype(np.float32)
    logits[:, tokenizer.timestamp_begin :] += np.array([bias for *_, bias in rows], np.float32)[:, None]
    constraints = [
        logit_filters.next_filter(tokens_of(history, timed, tokenizer), timestamps=timed, tokenizer=tokenizer)
        for history, timed, _ in rows
    ]
    chosen, logprob = choose.run(
        ["chosen", "logprob"],
        {
            "logits": logits,
            "mask": np.array([c.mask for c in constraints], np.int64),
            "timestamps": np.array([c.timestamps for c in constraints]),
            "timestamp_from": np.array([[c.timestamp_from] for c in constraints], np.int64),
            "timestamp_to": np.array([[c.timestamp_to] for c in constraints], np.int64),
        },
    )
    masks = logit_filters.filter_masks(tokenizer)
    for row, constraint in enumerate(constraints):
        allowed = logit_filters.apply_filter(logits[row], constraint, masks, tokenizer)
        assert chosen[row] == allowed.argmax()
        assert logprob[row] == pytest.approx(allowed.max() - logit_filters.log_sum_exp(allowed), abs=1e-4)
