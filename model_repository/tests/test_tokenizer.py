from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tools.shapes import CANTONESE, ENGLISH, SHAPES, tokenizer_of_size
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.weights import Checkpoint, load_checkpoint

NAMES = ("sot", "eot", "sot_prev", "no_speech", "no_timestamps", "timestamp_begin", "translate", "transcribe")


def test_special_tokens_are_where_whisper_has_them(tokenizer: Tokenizer) -> None:
    """The ids of the English-only vocabulary, as published with the models."""
    assert (tokenizer.eot, tokenizer.sot, tokenizer.no_timestamps) == (50256, 50257, 50362)
    assert tokenizer.timestamp_begin == 50363
    assert tokenizer.suppress_blank == (220, 50256)


def test_suppressed_tokens_are_the_published_ones(tokenizer: Tokenizer) -> None:
    """Derived from the tokenizer, the list is that of the model's own `generation_config.json`."""
    assert len(tokenizer.suppress_tokens) == 90
    assert tokenizer.suppress_tokens[:8] == (1, 2, 7, 8, 9, 10, 14, 25)
    assert tokenizer.suppress_tokens[-6:] == (50257, 50357, 50358, 50359, 50360, 50361)


@pytest.mark.parametrize(
    ("kind", "size"), [("english", "tiny.en"), ("multilingual", "base"), ("cantonese", "large-v3")]
)
def test_tokens_are_the_references(
    kind: str, size: str, recorded: Callable[[str], list[dict[str, Any]]], cache: Path
) -> None:
    """Special tokens, languages, suppression and prompts are those of openai-whisper, for each kind of vocabulary."""
    theirs = next(row for row in recorded("vocabulary") if row["kind"] == kind)
    weights = load_checkpoint("tiny.en" if kind == "english" else "base", cache)
    n_vocab = SHAPES[size].n_vocab
    ours = Tokenizer.from_json(tokenizer_of_size(weights.tokenizer_json, n_vocab), n_vocab)
    assert {name: getattr(ours, name) for name in NAMES} == {name: theirs[name] for name in NAMES}
    assert (list(ours.suppress_tokens), list(ours.suppress_blank)) == (theirs["suppressed"], theirs["blank"])
    assert [ours.encode_prompt(text) for text, _ in theirs["texts"]] == [ids for _, ids in theirs["texts"]]
    if ours.is_multilingual:
        assert dict(ours.languages) == theirs["languages"]


@pytest.mark.parametrize("n_vocab", [ENGLISH, CANTONESE])
def test_a_tokenizer_of_another_size_is_refused(n_vocab: int, multilingual: Checkpoint) -> None:
    """A tokenizer whose ids would be off by one is refused before anything is exported."""
    with pytest.raises(ValueError, match="it is not of these weights"):
        Tokenizer.from_json(multilingual.tokenizer_json, n_vocab)


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40))
def test_words_joined_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    """Splitting neither loses nor adds tokens or characters, in languages with and without spaces."""
    tokens = tokenizer.encode(text)
    for language in ("en", "zh"):
        words = tokenizer.split_to_word_tokens(tokens, language)
        assert "".join(word for word, _ in words) == tokenizer.decode(tokens)
        assert [token for _, ids in words for token in ids] == tokens


def test_words_are_split_at_spaces_and_punctuation(tokenizer: Tokenizer) -> None:
    """The tokens of a word stay together; punctuation is separate."""
    tokens = tokenizer.encode(" Unbelievable, Mr. Featherstonehaugh!")
    assert [word for word, _ in tokenizer.split_to_word_tokens(tokens, "en")] == [
        " Unbelievable", ",", " Mr", ".", " Featherstonehaugh", "!",
    ]  # fmt: skip


def test_another_tokenizer_is_refused() -> None:
    """A tokenizer without Whisper's special tokens is refused, and the error names the missing one."""
    with pytest.raises(ValueError, match="it is not Whisper's"):
        Tokenizer.from_json(b'{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}', 10)
