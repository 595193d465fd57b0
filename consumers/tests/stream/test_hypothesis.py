"""The text of an open segment grows from transcript to transcript, and what is stable stays."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_transcriber.stream.hypothesis import Hypothesis, Transcript, TranscriptWord

WORD_MS = 200
# The same words in several spellings, so that cases, punctuation and order all differ between transcripts.
WORDS = st.lists(st.sampled_from(["ask", "Ask", "not", "not.", "what,", "what", "your", "—"]), max_size=8)


def transcript(
    text: str, *, language: str = "en", timed: bool = True, separator: str | None = " ", confidence: float = 0.75
) -> Transcript:
    """Return a transcript whose words take 200 ms each."""
    words = text.split(separator) if separator else list(text)
    return Transcript(
        text=text,
        language=language,
        words=[
            TranscriptWord(word=word, start_ms=i * WORD_MS, end_ms=(i + 1) * WORD_MS, confidence=confidence)
            for i, word in enumerate(words)
            if timed and word
        ],
        avg_logprob=0,
        model="tiny.en",
        version="1",
    )


def after(*texts: str) -> Hypothesis:
    hypothesis = Hypothesis()
    for text in texts:
        hypothesis = hypothesis.extend(transcript(text))
    return hypothesis


def test_what_two_transcripts_agree_on_is_stable() -> None:
    """The sure words that two successive transcripts begin with are stable, the rest is not."""
    assert after("ask not what").stable_text == ""
    second = after("ask not what", "ask not that your")
    assert (second.stable_text, second.text) == ("ask not", "ask not that your")


def test_unsure_words_need_more_transcripts() -> None:
    """A word becomes stable when its confidences in the transcripts that agree on it add up, and no word before it."""
    hypothesis = Hypothesis()
    stable = []
    for sure in (0.9, 0.9, 0.1, 0.1):
        new = transcript("ask not what", confidence=sure)
        new.words[1] = new.words[1].model_copy(update={"confidence": 0.45})
        hypothesis = hypothesis.extend(new)
        stable.append(hypothesis.stable_text)
    assert stable == ["", "ask", "ask not what", "ask not what"]
    contradicted = after("ask not").extend(transcript("ask what")).extend(transcript("ask not", confidence=0.6))
    assert contradicted.stable_text == "ask"  # only transcripts in a row count


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        # A word appears before the stable ones, is missing from them, or they are heard differently.
        (["I think the", "I think the cat", "Well I think the cat sat"], "I think the cat sat"),
        (["I think the", "I think the cat", "think the cat sat"], "I think the cat sat"),
        (["I think the", "I think the cat", "I sink the cat sat"], "I think the cat sat"),
        (["I think the", "I think the cat", "I thought that cat sat"], "I think the cat sat"),
        # The beginning is gone, or everything behind it.
        (["I think the cat", "I think the cat sat", "cat sat down"], "I think the cat sat down"),
        (["I think the cat", "I think the cat sat", "I think"], "I think the cat"),
        (["I think the cat", "I think the cat sat", ""], "I think the cat"),
        # What is really said twice stays.
        (["no no", "no no no", "no no no no"], "no no no no"),
    ],
)
def test_a_transcript_is_aligned_to_what_is_stable(texts: list[str], text: str) -> None:
    """Only what the newest transcript says behind the stable words follows them."""
    assert after(*texts).text == text


@pytest.mark.parametrize(("second_end_ms", "text"), [(400, "a b c"), (600, "a b c y")])
def test_the_times_decide_between_equal_alignments(second_end_ms: int, text: str) -> None:
    """Of several places where the stable words may end, the one that ends at their time is taken."""
    before = after("a b c", "a b c")
    new = transcript("a x y")
    new.words[1] = new.words[1].model_copy(update={"end_ms": second_end_ms})
    new.words[2] = new.words[2].model_copy(update={"end_ms": second_end_ms + WORD_MS})
    assert before.extend(new).text == text


def test_a_transcript_of_a_pause_corrects_what_is_stable() -> None:
    """What will be the final is shown as it is. What it does not contradict stays stable, and transcripts go on."""
    before = after("I sink the cat", "I sink the cat sat")
    paused = before.correct(transcript("I think the cat sat."))
    assert (paused.stable_text, paused.text) == ("I", "I think the cat sat.")
    assert paused.extend(transcript("I think the cat sat down")).stable_text == "I think the cat sat"
    agreeing = transcript("I sink the cat sat.")
    assert before.correct(agreeing) == before.extend(agreeing)


def test_the_punctuation_at_the_end_is_not_stable() -> None:
    """A full stop at the end of a transcript neither keeps its word from being stable nor becomes stable with it."""
    before = after("Ask not.", "Ask not.")
    assert (before.stable_text, before.text) == ("Ask not", "Ask not.")
    longer = before.extend(transcript("Ask not, what your"))
    assert (longer.stable_text, longer.text) == ("Ask not", "Ask not, what your")
    assert longer.extend(transcript("Ask not, what your country")).stable_text == "Ask not, what your"


def test_words_within_a_transcript_must_agree_as_they_are_written() -> None:
    """Before its last word, a difference in case or punctuation is a difference: a sentence may end there."""
    assert after("so it goes. And", "so it goes and goes").stable_text == "so it"
    assert after("so it goes.", "so it goes and").stable_text == "so it goes"


def test_a_language_without_spaces_has_a_stable_part() -> None:
    """In Chinese, Japanese or Thai the stable part is counted in the model's words, which are characters."""
    hypothesis = Hypothesis()
    for text in ("我们今天", "我们今天去", "你我们今天去学校。"):
        hypothesis = hypothesis.extend(transcript(text, language="zh", separator=None))
    assert (hypothesis.stable_text, hypothesis.text) == ("我们今天去", "我们今天去学校。")


def test_foreign_words_keep_their_spaces() -> None:
    """In text without spaces, words that have spaces keep them."""
    pieces = ["我", "用", "GPU", "card", "吗"]
    mixed = transcript(" ".join(pieces), language="zh").model_copy(update={"text": "我用 GPU card吗"})
    hypothesis = Hypothesis().extend(mixed).extend(mixed)
    assert hypothesis.text == hypothesis.stable_text == "我用 GPU card吗"


def test_words_have_times_and_confidences() -> None:
    """Each word has the times and the confidence that its transcript gives; the mean is that of the hypothesis."""
    hypothesis = after("ask not.", "ask not. What")
    assert [(word.word, word.start_ms, word.end_ms, word.confidence) for word in hypothesis.words] == [
        ("ask", 0, 200, 0.75), ("not.", 200, 400, 0.75), ("What", 400, 600, 0.75),
    ]  # fmt: skip
    assert hypothesis.confidence == 0.75
    assert Hypothesis().confidence == 0


def test_a_transcript_without_times_is_divided_at_its_spaces() -> None:
    """If the model gave no words, or others than its text has, the text still counts."""
    for unusable in (transcript("ask not", timed=False), transcript("ask what").model_copy(update={"text": "ask not"})):
        hypothesis = Hypothesis().extend(unusable)
        assert hypothesis.text == "ask not"
        assert [word.word for word in hypothesis.words] == ["ask", "not"]
        assert {(word.start_ms, word.end_ms, word.confidence) for word in hypothesis.words} == {(0, 0, 1)}


@given(st.lists(WORDS, max_size=12), st.sampled_from([" ", ""]), st.booleans())
def test_the_stable_text_only_grows(transcripts: list[list[str]], separator: str, timed: bool) -> None:
    """No later transcript changes or shortens the stable text, and the text begins with it."""
    before = Hypothesis()
    for words in transcripts:
        new = transcript(" ".join(words), timed=timed, language="en" if separator else "zh")
        following = before.extend(new.model_copy(update={"text": separator.join(words)}))
        assert following.stable_text.startswith(before.stable_text)
        assert following.text.startswith(following.stable_text)
        if timed or separator:
            assert following.text == separator.join(word.word for word in following.words)
        before = following


@given(WORDS, WORDS, WORDS)
def test_the_words_of_a_pause_are_shown(first: list[str], second: list[str], paused: list[str]) -> None:
    """Whatever was stable, the text at a pause has exactly the words of its transcript."""
    corrected = after(" ".join(first), " ".join(second)).correct(transcript(" ".join(paused)))
    said = [word.casefold().strip(".,") for word in corrected.text.split()]
    assert said == [word.casefold().strip(".,") for word in paused]
    assert corrected.text.startswith(corrected.stable_text)


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=7), max_size=10))
def test_no_word_is_told_twice(transcripts: list[list[str]]) -> None:
    """Two equal words in a row come from the transcript or were stable before; aligning never makes them."""
    before = Hypothesis()
    for words in transcripts:
        following = before.extend(transcript(" ".join(words)))
        twice = [pair for pair in pairwise(following.text.split()) if pair[0] == pair[1]]
        known = [*pairwise(words), *pairwise(before.stable_text.split())]
        assert all(pair in known for pair in twice)
        before = following


@given(st.lists(st.sampled_from(["ask", "not", "what"]), max_size=8))
def test_the_same_transcript_again_is_stable(words: list[str]) -> None:
    """A transcript that comes twice is stable to its last word."""
    twice = after(" ".join(words), " ".join(words))
    assert twice.stable_text == twice.text == " ".join(words)
