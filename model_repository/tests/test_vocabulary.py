from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tools.shapes import CANTONESE, ENGLISH, SHAPES, tokenizer_of_size
from whisperline_models.engine.vocabulary import Vocabulary
from whisperline_models.weights import Checkpoint, load_checkpoint

NAMES = {  # of openai-whisper's tokenizer: ours
    "sot": "start",
    "eot": "end",
    "no_speech": "no_speech",
    "no_timestamps": "no_timestamps",
    "timestamp_begin": "timestamp_begin",
    "translate": "translate",
    "transcribe": "transcribe",
    "sot_prev": "start_of_previous",
}


def test_special_tokens_are_where_whisper_has_them(vocabulary: Vocabulary) -> None:
    """The ids of the English-only vocabulary, as published with the models."""
    assert (vocabulary.end, vocabulary.start, vocabulary.no_timestamps) == (50256, 50257, 50362)
    assert vocabulary.timestamp_begin == 50363
    assert vocabulary.blank == (220, 50256)


def test_suppressed_tokens_are_the_published_ones(vocabulary: Vocabulary) -> None:
    """Derived from the tokenizer, the list is that of the model's own `generation_config.json`."""
    assert len(vocabulary.suppressed) == 90
    assert vocabulary.suppressed[:8] == (1, 2, 7, 8, 9, 10, 14, 25)
    assert vocabulary.suppressed[-6:] == (50257, 50357, 50358, 50359, 50360, 50361)


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
    ours = Vocabulary.from_json(tokenizer_of_size(weights.tokenizer_json, n_vocab), n_vocab)
    assert {name: getattr(ours, field) for name, field in NAMES.items()} == {name: theirs[name] for name in NAMES}
    assert (list(ours.suppressed), list(ours.blank)) == (theirs["suppressed"], theirs["blank"])
    assert [ours.encode_prompt(text) for text, _ in theirs["texts"]] == [ids for _, ids in theirs["texts"]]
    if ours.is_multilingual:
        assert dict(ours.languages) == theirs["languages"]


@pytest.mark.parametrize("n_vocab", [ENGLISH, CANTONESE])
def test_a_tokenizer_of_another_size_is_refused(n_vocab: int, multilingual: Checkpoint) -> None:
    """Tokens that would all be one off are found out before anything is exported."""
    with pytest.raises(ValueError, match="it is not of these weights"):
        Vocabulary.from_json(multilingual.tokenizer_json, n_vocab)


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40))
def test_words_joined_are_the_text(vocabulary: Vocabulary, text: str) -> None:
    """Splitting loses and invents nothing, tokens nor characters, in spaced and unspaced languages."""
    tokens = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids
    for language in ("en", "zh"):
        words = vocabulary.split_words(tokens, language)
        assert "".join(word for word, _ in words) == vocabulary.decode(tokens)
        assert [token for _, ids in words for token in ids] == tokens


def test_words_are_split_at_spaces_and_punctuation(vocabulary: Vocabulary) -> None:
    """Pieces of a word stay together; punctuation stands alone."""
    tokens = vocabulary.tokenizer.encode(" Unbelievable, Mr. Featherstonehaugh!", add_special_tokens=False).ids
    assert [word for word, _ in vocabulary.split_words(tokens, "en")] == [
        " Unbelievable", ",", " Mr", ".", " Featherstonehaugh", "!",
    ]  # fmt: skip


def test_another_tokenizer_is_refused() -> None:
    """A tokenizer without Whisper's tokens fails with the one that is missing."""
    with pytest.raises(ValueError, match="it is not Whisper's"):
        Vocabulary.from_json(b'{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}', 10)
