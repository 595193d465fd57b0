"""The engine's text and words, and the independence of rows in a batch."""

import itertools
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jiwer import wer
from numpy.typing import NDArray
from whisperline_models.engine.errors import RequestError
from whisperline_models.engine.fallback import Verdict
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.gate import Clip
from whisperline_models.weights import Checkpoint

TIMED = json.dumps({"language": "en", "timestamps": True, "words": True}).encode()
SAMPLE = 12  # clips, spread over the set


@pytest.fixture(scope="module")
def base(multilingual: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The multilingual model in float32."""
    return Engine(export_version(multilingual, tmp_path_factory.mktemp("base") / "version", "float32"), threads=2)


def _ask(engine: Engine, audio: NDArray[np.int16], options: bytes = TIMED) -> Request:
    return Request.parse(audio, options, engine.tokenizer.languages)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def _said(result: Result) -> tuple[str, tuple[int, ...], float]:
    return result.text, result.tokens, result.window_s


@pytest.fixture(scope="module")
def rows(served: Engine, english: list[Clip]) -> list[tuple[Request, Result]]:
    """Clips of many lengths, each with the result of transcribing it alone."""
    chosen = sorted(english, key=lambda clip: clip.duration_s)[:: max(1, len(english) // 8)][:8]
    requests = [_ask(served, clip.read()) for clip in chosen]
    return [(request, served.transcribe([request])[0]) for request in requests]


@given(data=st.data())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_does_not_depend_on_its_batch(
    served: Engine, rows: list[tuple[Request, Result]], data: st.DataObject
) -> None:
    """A row's text and tokens are the same as alone, whatever shares its batch, in any order."""
    batch = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=2, max_size=6))
    together = served.transcribe([rows[index][0] for index in batch])
    assert [_said(result) for result in together] == [_said(rows[index][1]) for index in batch]


def test_a_row_that_leaves_for_a_better_lane_goes_on_where_it_was(
    served: Engine, rows: list[tuple[Request, Result]]
) -> None:
    """Files that are interrupted by a live final, after any number of units, give the same text as alone."""
    (first, first_alone), (second, second_alone), (live, live_alone) = rows[-1], rows[-2], rows[0]
    for units in (3, 9, 14):
        said: dict[str, Result] = {}
        for name, request in (("first", first), ("second", second)):
            served.submit(replace(request, lane="file"), partial(said.__setitem__, name))
        for _ in range(units):
            served.work()
        served.submit(replace(live, lane="final"), partial(said.__setitem__, "live"))
        while served.work():
            pass
        assert next(iter(said)) == "live"
        alone = {"live": live_alone, "first": first_alone, "second": second_alone}
        assert {name: _said(result) for name, result in said.items()} == {n: _said(r) for n, r in alone.items()}


def test_a_unit_that_fails_ends_its_own_requests_alone(
    served: Engine, rows: list[tuple[Request, Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose unit fails gets the error, and the others in the batch give the same text as alone."""
    request, alone = rows[0]
    encode = served.encoder.mel

    def fail_for_one_sample(audio: NDArray[np.float32], window_s: float) -> NDArray[np.float32]:
        return encode(audio, window_s) if audio.size > 1 else 1 / 0  # type: ignore[return-value]

    monkeypatch.setattr(served.encoder, "mel", fail_for_one_sample)
    outcomes: dict[str, Result | Exception] = {}
    for name, asked in (("good", request), ("broken", Request(np.zeros(1, np.float32)))):
        served.submit(asked, partial(outcomes.__setitem__, name))
    while served.work():
        pass
    assert isinstance(outcomes["broken"], ZeroDivisionError)
    assert outcomes["good"] == alone


def test_words_follow_each_other_within_the_audio(rows: list[tuple[Request, Result]]) -> None:
    """Word times never decrease or exceed the audio, and the words together are the text."""
    for request, result in rows:
        words = result.words
        assert "".join(word.word for word in words).split() == result.text.split() or (
            " ".join(word.word for word in words) == result.text
        )
        times = [(word.start_ms, word.end_ms) for word in words]
        assert all(0 <= start < end <= len(request.audio) // 16 for start, end in times)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(times))
        assert all(0 <= word.confidence <= 1 for word in words)


def test_a_prefix_is_continued(base: Engine, rows: list[tuple[Request, Result]]) -> None:
    """After the first half of a text as prefix, the result is the second half, with the same times of words."""
    for request, _ in rows[-3:]:
        (whole,) = base.transcribe([replace(request, timestamps=False)])
        decided, rest = whole.words[: len(whole.words) // 2], whole.words[len(whole.words) // 2 :]
        prefix = " ".join(word.word for word in decided)
        asked = replace(request, prefix=prefix, prefix_ms=decided[-1].end_ms, timestamps=False)
        timed = replace(asked, timestamps=True)
        aligned, rough, stamped = base.transcribe([asked, replace(asked, words="rough"), timed])
        assert aligned.text == rough.text == " ".join(word.word for word in rest)
        # Only words beside a pause may differ: how long a word may be is judged by the words of the result.
        gaps = [abs(one.start_ms - other.start_ms) for one, other in zip(aligned.words, rest, strict=True)]
        assert np.median(gaps) <= 20
        assert [word.word for word in rough.words] == [word.word for word in rest]
        assert stamped.text.split()[0] == rest[0].word
        assert asked.prefix_ms <= rough.words[0].start_ms < rough.words[-1].end_ms <= asked.audio.size // 16


@pytest.mark.parametrize("languages", [(), ("fr", "en")])
def test_a_prompt_is_read_as_if_it_were_fed(
    base: Engine, english: list[Clip], monkeypatch: pytest.MonkeyPatch, languages: tuple[str, ...]
) -> None:
    """A prompt that is read at once gives the text, probabilities and language that it gives token by token."""
    audio = english[1].read()[: 5 * 16_000].astype(np.float32) / 32_768
    plain = Request(audio, None if languages else "en", languages, prompt="So far, that is what Dr. Ott had to say.")
    for request in (plain, replace(plain, prompt="", prefix="And he said", prefix_ms=400, timestamps=True)):
        (read,) = base.transcribe([request])
        with monkeypatch.context() as patch:
            patch.setattr("whisperline_models.engine.decoding.MIN_READ", 10_000)
            (fed,) = base.transcribe([request])
        assert (read.text, read.tokens, read.language) == (fed.text, fed.tokens, fed.language)
        assert read.avg_logprob == pytest.approx(fed.avg_logprob, abs=1e-4)
        assert read.no_speech_prob == pytest.approx(fed.no_speech_prob, abs=1e-4)
        assert read.language_probs == pytest.approx(fed.language_probs, abs=1e-4)


def test_prompts_that_are_read_together_are_read_as_alone(base: Engine, english: list[Clip]) -> None:
    """Prompts of different lengths over windows of one length leave the same keys and values together as alone."""
    audio = [clip.read()[: 4 * 16_000].astype(np.float32) / 32_768 for clip in english[:2]]
    windows = [base.encoder.window(samples, 5.0) for samples in audio]
    prompts = [list(range(100, 112)), list(range(300, 307))]
    together = base.aligner.read(windows, prompts)
    for window, prompt, kept in zip(windows, prompts, together, strict=True):
        (alone,) = base.aligner.read([window], [prompt])
        assert alone.shape[3] == len(prompt)
        np.testing.assert_allclose(kept, alone, atol=1e-4)


def test_a_prefix_that_is_too_long_is_refused(served: Engine) -> None:
    """A prefix with more tokens than fit ends the request with the number that is allowed."""
    with pytest.raises(RequestError, match=r"options.prefix: has 300 tokens, send at most 200"):
        served.transcribe([Request(np.zeros(32_000, np.float32), prefix="word " * 300, prefix_ms=1_000)])


def test_a_text_that_fails_in_its_context_is_decoded_without_it(
    served: Engine, rows: list[tuple[Request, Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure, prompt and hotwords are dropped; after a prefix, only the audio behind it is decoded again."""
    request, alone = rows[-1]

    def judge_context(*_: object, **__: object) -> Verdict:
        return verdicts.pop(0)

    monkeypatch.setattr("whisperline_models.engine.stages.judge", judge_context)
    verdicts = [Verdict.SILENT, Verdict.GOOD]
    asked = replace(request, prompt="the the the", hotwords="the")
    assert served.transcribe([asked]) == [alone]
    verdicts = [Verdict.REPEATED, Verdict.GOOD]
    assert served.transcribe([replace(request, beam_size=5)]) == [alone]
    half_ms = 20 * (request.audio.size // 640)
    verdicts = [Verdict.GOOD]
    (rest,) = served.transcribe([replace(request, audio=request.audio[half_ms * 16 :])])
    for failure in (Verdict.IMPROBABLE, Verdict.SILENT):
        verdicts = [failure, Verdict.GOOD]
        (late,) = served.transcribe([replace(request, prefix="the the the", prefix_ms=half_ms)])
        assert late.text == rest.text
        assert late.words[0].start_ms == rest.words[0].start_ms + half_ms


def test_the_end_of_a_text_has_its_probability(rows: list[tuple[Request, Result]]) -> None:
    """The last token of every text has a log probability."""
    assert all(result.last_logprob < 0 for _, result in rows if result.text)


def test_read_speech_is_understood(served: Engine, english: list[Clip]) -> None:
    """Over varied clips of at least three seconds, at most one word in five differs from the transcript."""
    clips = [clip for clip in english if clip.duration_s >= 3]
    chosen = clips[:: max(1, len(clips) // SAMPLE)][:SAMPLE]
    heard = served.transcribe([_ask(served, clip.read()) for clip in chosen])
    rate = wer([_plain(clip.text) for clip in chosen], [_plain(result.text) for result in heard])
    assert rate < 0.2


@pytest.mark.parametrize("seconds", [1, 5, 28])
def test_silence_noise_and_tones_give_no_text(served: Engine, seconds: int) -> None:
    """Audio without speech gives no text."""
    random = np.random.default_rng(seconds)
    size = seconds * 16_000
    tone = (8_000 * np.sin(2 * np.pi * 440 * np.arange(size) / 16_000)).astype(np.int16)
    noise = random.normal(0, 300, size).astype(np.int16)
    requests = [_ask(served, audio) for audio in (np.zeros(size, np.int16), noise, tone)]
    assert [result.text for result in served.transcribe(requests)] == ["", "", ""]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"beam": 5}', "options.beam is not known"),
        (b'{"words": 1}', "options.words: 1 has the wrong type"),
        (b'{"language": "fr"}', 'this model has no "fr"'),
    ],
)
def test_wrong_options_are_named(served: Engine, options: bytes, reason: str) -> None:
    """An invalid option is refused with a reason for its sender, before anything is decoded."""
    with pytest.raises(RequestError, match=re.escape(reason)):
        _ask(served, np.zeros(16_000, np.int16), options)


@pytest.mark.parametrize("size", [0, 30 * 16_000 + 1])
def test_audio_of_a_wrong_length_is_refused(served: Engine, size: int) -> None:
    """Empty audio, or more audio than fits into Whisper's window, is refused."""
    with pytest.raises(RequestError, match="send 1 to 480000"):
        _ask(served, np.zeros(size, np.int16))
