"""The stable prefix of partials."""

from hypothesis import given
from hypothesis import strategies as st
from whisperline_transcriber.stream.hypothesis import Hypothesis, agree

WORDS = st.lists(st.sampled_from(["ask", "not", "what", "your"]), max_size=6).map(" ".join)


def test_what_two_hypotheses_agree_on_is_stable() -> None:
    """The common prefix of two successive hypotheses is stable, the rest is not."""
    first = agree(Hypothesis(), "ask not what")
    second = agree(first, "ask not that your")
    assert first.stable == ()
    assert second.stable_text == "ask not"
    assert second.text == "ask not that your"


@given(st.lists(WORDS, max_size=12))
def test_the_stable_prefix_only_grows(texts: list[str]) -> None:
    """No later hypothesis changes or shortens what is stable, and the text begins with it."""
    before = Hypothesis()
    for text in texts:
        after = agree(before, text)
        assert after.stable[: len(before.stable)] == before.stable
        assert after.text.startswith(after.stable_text)
        assert after.words[len(after.stable) :] == tuple(text.split())[len(after.stable) :]
        before = after
