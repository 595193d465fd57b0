from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_models.engine import rules
from whisperline_models.engine.vocabulary import Vocabulary
from whisperline_models.export import graphs
from whisperline_models.export.onnx_builder import FLOAT, GraphBuilder


def reference(logits: np.ndarray, tokens: list[int], timed: bool, vocabulary: Vocabulary) -> np.ndarray:
    """The logit filters of the reference's `decoding.py`, one after the other, as it states them."""
    logits, begin = logits.copy(), vocabulary.timestamp_begin
    if not tokens:
        logits[list(vocabulary.blank)] = -np.inf
    logits[list(vocabulary.suppressed)] = -np.inf
    if not timed:
        return logits
    logits[vocabulary.no_timestamps] = -np.inf
    last_was_timestamp = len(tokens) >= 1 and tokens[-1] >= begin
    penultimate_was_timestamp = len(tokens) < 2 or tokens[-2] >= begin
    if last_was_timestamp:
        if penultimate_was_timestamp:
            logits[begin:] = -np.inf
        else:
            logits[: vocabulary.end] = -np.inf
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


def tokens_of(history: list[tuple[str, int]], timed: bool, vocabulary: Vocabulary) -> list[int]:
    if not timed:
        return [value for kind, value in history if kind == "text"]
    return [value + (vocabulary.timestamp_begin if kind == "stamp" else 0) for kind, value in history]


@settings(deadline=None, max_examples=60)
@given(history=histories(), timed=st.booleans(), seed=st.integers(0, 2**32 - 1), bias=st.floats(-6, 6))
def test_rules_are_the_references(
    vocabulary: Vocabulary, history: list[tuple[str, int]], timed: bool, seed: int, bias: float
) -> None:
    """Our constraints forbid exactly the tokens that the reference's filters forbid."""
    tokens = tokens_of(history, timed, vocabulary)
    logits = np.random.default_rng(seed).normal(0, 3, vocabulary.n_vocab).astype(np.float32)
    logits[vocabulary.timestamp_begin :] += bias
    constraint = rules.constrain(tokens, timed=timed, vocabulary=vocabulary)
    ours = rules.apply(logits, constraint, rules.phase_masks(vocabulary), vocabulary)
    np.testing.assert_array_equal(ours > rules.NEVER / 2, np.isfinite(reference(logits, tokens, timed, vocabulary)))


@pytest.fixture(scope="module")
def choose(vocabulary: Vocabulary) -> onnxruntime.InferenceSession:
    graph = GraphBuilder("choose")
    graphs.add_greedy_choice(graph, graph.input("logits", FLOAT, ["B", vocabulary.n_vocab]), vocabulary)
    return onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.tuples(histories(), st.booleans(), st.floats(-6, 6)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_graph_chooses_by_the_same_rules(
    vocabulary: Vocabulary,
    choose: onnxruntime.InferenceSession,
    rows: list[tuple[list[tuple[str, int]], bool, float]],
    seed: int,
) -> None:
    """The decoder's graph picks the best token that the rules allow, with its probability among those."""
    logits = np.random.default_rng(seed).normal(0, 3, (len(rows), vocabulary.n_vocab)).astype(np.float32)
    logits[:, vocabulary.timestamp_begin :] += np.array([bias for *_, bias in rows], np.float32)[:, None]
    constraints = [
        rules.constrain(tokens_of(history, timed, vocabulary), timed=timed, vocabulary=vocabulary)
        for history, timed, _ in rows
    ]
    chosen, logprob = choose.run(
        ["chosen", "logprob"],
        {
            "logits": logits,
            "phase": np.array([c.phase for c in constraints], np.int64),
            "timed": np.array([c.timed for c in constraints]),
            "time_from": np.array([[c.time_from] for c in constraints], np.int64),
            "time_to": np.array([[c.time_to] for c in constraints], np.int64),
        },
    )
    masks = rules.phase_masks(vocabulary)
    for row, constraint in enumerate(constraints):
        allowed = rules.apply(logits[row], constraint, masks, vocabulary)
        assert chosen[row] == allowed.argmax()
        assert logprob[row] == pytest.approx(allowed.max() - rules.log_sum_exp(allowed), abs=1e-4)
