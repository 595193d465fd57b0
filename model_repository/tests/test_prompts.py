"""What the decoder is fed before it may choose, held against the reference's `decoding.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_models.engine.prompts import MAX_PREVIOUS, build_prompt
from whisperline_models.engine.requests import Request
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.weights import Checkpoint

AUDIO = np.zeros(160, np.float32)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=900)


@pytest.fixture(scope="module")
def many(multilingual: Checkpoint) -> Tokenizer:
    """The tokens of base."""
    return Tokenizer.from_json(multilingual.tokenizer_json, multilingual.dimensions.n_vocab)


def test_an_english_model_is_fed_the_start_alone(tokenizer: Tokenizer) -> None:
    """Language and task have no place in the prompt of an English-only model."""
    assert build_prompt(Request(AUDIO, timestamps=True), tokenizer).tokens == (50257,)
    prompt = build_prompt(Request(AUDIO), tokenizer)
    assert (prompt.tokens, prompt.sot_index, prompt.language_index) == ((50257, 50362), 0, None)


def test_language_and_task_follow_the_start(many: Tokenizer) -> None:
    """The ids are the published ones: French 50265, translate 50358, transcribe 50359."""
    request = Request(AUDIO, language="fr", task="translate")
    assert build_prompt(request, many).tokens == (50258, 50265, 50358, 50363)
    request = Request(AUDIO, language="fr", timestamps=True)
    assert build_prompt(request, many).tokens == (50258, 50265, 50359)


def test_a_detected_language_takes_its_place(many: Tokenizer) -> None:
    """English stands where the language will go, behind any prompt."""
    prompt = build_prompt(Request(AUDIO, prompt="Dr. Ott"), many)
    assert prompt.tokens[prompt.sot_index] == many.sot
    assert prompt.language_index is not None
    assert prompt.tokens[prompt.language_index] == many.languages["en"]
    known = prompt.with_language(many.languages["fr"])
    assert known == build_prompt(Request(AUDIO, language="fr", prompt="Dr. Ott"), many)
    assert known.with_language(many.languages["es"]) == known


def test_hotwords_stand_before_the_prompt(tokenizer: Tokenizer) -> None:
    """Both come after the token of previous text, each encoded with a space before it."""
    prompt = build_prompt(Request(AUDIO, prompt="So far.", hotwords="Ott"), tokenizer)
    assert prompt.tokens[0] == tokenizer.sot_prev == 50360
    assert tokenizer.decode(prompt.tokens[1:]) == " Ott So far."
    assert prompt.tokens[prompt.sot_index :] == (50257, 50362)


@settings(deadline=None)
@given(prompt=TEXT, hotwords=TEXT)
def test_what_was_said_before_is_cut_to_half_of_the_context(tokenizer: Tokenizer, prompt: str, hotwords: str) -> None:
    """Hotwords keep their beginning and the prompt its end; what follows the start is as without them."""
    built = build_prompt(Request(AUDIO, prompt=prompt, hotwords=hotwords), tokenizer)
    plain = build_prompt(Request(AUDIO), tokenizer)
    said, hot = (tokenizer.encode_prompt(text) for text in (prompt, hotwords))
    previous = list(built.tokens[1 : built.sot_index])
    assert len(previous) == min(MAX_PREVIOUS, len(said) + len(hot))
    assert previous[: len(hot)] == hot[:MAX_PREVIOUS]
    assert said[len(said) - len(previous[len(hot) :]) :] == previous[len(hot) :]
    assert built.tokens[built.sot_index :] == plain.tokens
    assert all(token < tokenizer.eot for token in previous)


@pytest.mark.parametrize(("words", "timestamps", "limit"), [(0, False, 224), (500, False, 221), (500, True, 222)])
def test_a_long_prompt_leaves_less_for_the_text(many: Tokenizer, words: int, timestamps: bool, limit: int) -> None:
    """As in the reference, prompt and text share 448 tokens and one more that is never fed."""
    request = Request(AUDIO, "en", prompt="word " * words, timestamps=timestamps)
    assert build_prompt(request, many).sample_len == limit
