"""The decoder's prompt, compared with the reference's `decoding.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisperline_models.engine.errors import RequestError
from whisperline_models.engine.prompts import MAX_PREFIX, MAX_PREVIOUS, Prompt, build_prompt
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
    """The prompt of an English-only model has no language and no task."""
    assert build_prompt(Request(AUDIO, timestamps=True), tokenizer).tokens == (50257,)
    prompt = build_prompt(Request(AUDIO), tokenizer)
    assert prompt == Prompt((50257, 50362), sot_index=0, language_index=None, text_index=2)


def test_language_and_task_follow_the_start(many: Tokenizer) -> None:
    """The ids are the published ones: French 50265, translate 50358, transcribe 50359."""
    request = Request(AUDIO, language="fr", task="translate")
    assert build_prompt(request, many).tokens == (50258, 50265, 50358, 50363)
    request = Request(AUDIO, language="fr", timestamps=True)
    assert build_prompt(request, many).tokens == (50258, 50265, 50359)


def test_a_detected_language_takes_its_place(many: Tokenizer) -> None:
    """English is the placeholder for the language to be detected, after any earlier text."""
    prompt = build_prompt(Request(AUDIO, prompt="Dr. Ott"), many)
    assert prompt.tokens[prompt.sot_index] == many.sot
    assert prompt.language_index is not None
    assert prompt.tokens[prompt.language_index] == many.languages["en"]
    known = prompt.with_language(many.languages["fr"])
    assert known == build_prompt(Request(AUDIO, language="fr", prompt="Dr. Ott"), many)
    assert known.with_language(many.languages["es"]) == known


def test_hotwords_stand_before_the_prompt(tokenizer: Tokenizer) -> None:
    """Hotwords and earlier text follow <|startofprev|>, each encoded with a leading space."""
    prompt = build_prompt(Request(AUDIO, prompt="So far.", hotwords="Ott"), tokenizer)
    assert prompt.tokens[0] == tokenizer.sot_prev == 50360
    assert tokenizer.decode(prompt.tokens[1:]) == " Ott So far."
    assert prompt.tokens[prompt.sot_index :] == (50257, 50362)


@settings(deadline=None)
@given(prompt=TEXT, hotwords=TEXT)
def test_what_was_said_before_is_cut_to_half_of_the_context(tokenizer: Tokenizer, prompt: str, hotwords: str) -> None:
    """Overlong hotwords keep their beginning and the prompt its end; the tokens after them do not change."""
    built = build_prompt(Request(AUDIO, prompt=prompt, hotwords=hotwords), tokenizer)
    plain = build_prompt(Request(AUDIO), tokenizer)
    said, hot = (tokenizer.encode_prompt(text) for text in (prompt, hotwords))
    previous = list(built.tokens[1 : built.sot_index])
    assert len(previous) == min(MAX_PREVIOUS, len(said) + len(hot))
    assert previous[: len(hot)] == hot[:MAX_PREVIOUS]
    assert said[len(said) - len(previous[len(hot) :]) :] == previous[len(hot) :]
    assert built.tokens[built.sot_index :] == plain.tokens
    assert all(token < tokenizer.eot for token in previous)


def test_a_prefix_begins_the_text(tokenizer: Tokenizer) -> None:
    """The prefix follows the start of the transcript, behind <|0.00|> if the text has timestamps."""
    plain = build_prompt(Request(AUDIO, prefix="So far", prefix_ms=5), tokenizer)
    assert plain.tokens[: plain.text_index] == (50257, 50362)
    assert tokenizer.decode(plain.tokens[plain.text_index :]) == " So far"
    timed = build_prompt(Request(AUDIO, prompt="Dr. Ott", prefix="So far", prefix_ms=5, timestamps=True), tokenizer)
    assert timed.tokens[timed.sot_index : timed.text_index] == (50257,)
    assert timed.tokens[timed.text_index :] == (50363, *plain.tokens[plain.text_index :])


def test_a_prefix_takes_its_room_from_earlier_text(tokenizer: Tokenizer) -> None:
    """Prompt and prefix share half of the context; a prefix that is too long is refused with its length."""
    longest = Request(AUDIO, prompt="word " * 300, prefix="word " * MAX_PREFIX, prefix_ms=5)
    built = build_prompt(longest, tokenizer)
    assert len(built.tokens) == 1 + MAX_PREVIOUS + 2
    assert len(built.tokens) - built.text_index == MAX_PREFIX
    with pytest.raises(RequestError, match=r"options.prefix: has 201 tokens, send at most 200"):
        build_prompt(replace(longest, prefix="word " * (MAX_PREFIX + 1)), tokenizer)


@pytest.mark.parametrize(("words", "timestamps", "limit"), [(0, False, 224), (500, False, 221), (500, True, 222)])
def test_a_long_prompt_leaves_less_for_the_text(many: Tokenizer, words: int, timestamps: bool, limit: int) -> None:
    """As in the reference, prompt and text share 448 tokens, plus one that is chosen but never fed."""
    request = Request(AUDIO, "en", prompt="word " * words, timestamps=timestamps)
    assert build_prompt(request, many).sample_len == limit
