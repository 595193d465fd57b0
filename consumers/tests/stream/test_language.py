"""A session that is to be detected keeps its language, unless the evidence for another is strong."""

from collections.abc import Mapping

import pytest
from whisperline_contracts import StreamOptions
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.language import gather, language_of, refusal

DETECT = StreamOptions(language=None)
SECOND = 16_000


def said(**probabilities: float) -> Transcript:
    return Transcript(
        text="Genau.",
        language=max(probabilities, key=probabilities.__getitem__, default="fr"),
        words=[],
        avg_logprob=0,
        model="m",
        version="1",
        language_probs=probabilities,
    )


def after(*segments: tuple[int, Transcript]) -> dict[str, float]:
    """Return the evidence after segments of so many seconds."""
    evidence: dict[str, float] = {}
    for seconds, transcript in segments:
        evidence = gather(evidence, transcript, seconds * SECOND)
    return evidence


def test_a_short_word_takes_over_the_language_of_the_session() -> None:
    """After a German sentence, "Ja." is German, whatever the model would take it for."""
    evidence = after((6, said(de=0.9, nl=0.1)))
    assert language_of(DETECT, evidence, SECOND) == "de"
    evidence = gather(evidence, said(en=0.8, de=0.2), SECOND)
    assert language_of(DETECT, evidence, SECOND) == "de"


def test_long_segments_change_the_language() -> None:
    """A segment that is long enough is always detected, and a few of them outweigh the language before."""
    evidence = after((6, said(de=0.9, nl=0.1)))
    assert language_of(DETECT, evidence, 6 * SECOND) is None
    evidence = after((6, said(de=0.9, nl=0.1)), (8, said(fr=0.95)), (8, said(fr=0.95)))
    assert language_of(DETECT, evidence, SECOND) == "fr"


@pytest.mark.parametrize("evidence", [{}, {"de": 1.0, "en": 0.5}])
def test_weak_evidence_decides_nothing(evidence: Mapping[str, float]) -> None:
    """Without evidence, or with hardly more for one language than for another, every segment is detected."""
    assert language_of(DETECT, evidence, SECOND) is None


def test_the_language_that_the_client_chose_stays() -> None:
    """A language in the query is used for every segment, and gathers no evidence."""
    options = StreamOptions(language="fr")
    assert language_of(options, {"de": 50.0}, 8 * SECOND) == "fr"
    assert gather({}, said(), SECOND) == {}


@pytest.mark.parametrize(
    ("options", "known", "why"),
    [
        (StreamOptions(language="de"), {"en"}, "language: this model has no de, only en."),
        (StreamOptions(language=None, languages=("de", "xx")), {"de", "en"}, "this model has no xx, only de, en."),
        (DETECT, {"en"}, "cannot detect another language"),
        (DETECT, {"en", "de"}, ""),
        (StreamOptions(language="en"), {"en"}, ""),
    ],
)
def test_a_language_that_the_model_lacks_is_refused(options: StreamOptions, known: set[str], why: str) -> None:
    """The reason names what is missing and what the model has."""
    reason = refusal(options, known)
    assert why in reason
    assert bool(why) == bool(reason)
