from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_models.engine.requests import Request, RequestError
from whisperline_models.engine.transcription import attempts

AUDIO = np.zeros(16000, np.int16)
LANGUAGES = ("en", "fr")


def test_options_are_read() -> None:
    """Each option of the interface reaches the request; those left out have their defaults."""
    assert Request.parse(AUDIO, b"{}", LANGUAGES).language is None
    request = Request.parse(AUDIO, b'{"language": "fr", "timestamps": true, "words": true}', LANGUAGES)
    assert (request.language, request.timestamps, request.words) == ("fr", True, True)


@given(options=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(options: bytes) -> None:
    """Garbage never gets past the parser, nor makes it fail in another way."""
    try:
        request = Request.parse(AUDIO, options, LANGUAGES)
    except RequestError:
        return
    assert request.language in {None, *LANGUAGES}


@pytest.mark.parametrize(
    ("seconds", "window_s"), [(0.1, 12), (10.0, 12), (10.1, 15), (13.0, 15), (17.9, 20), (18.1, 30), (30.0, 30)]
)
def test_the_window_is_the_smallest_with_a_margin(seconds: float, window_s: int) -> None:
    """Two seconds stay free behind the audio, where thirty allow it."""
    assert attempts(round(seconds * 16000), (30, 12, 20, 15))[0].window_s == window_s


def test_the_ladder_goes_over_the_full_window_to_the_temperatures() -> None:
    """After the small window come 30 s, greedy and then sampled ever more freely."""
    ladder = [(attempt.window_s, attempt.temperature) for attempt in attempts(16000, (12, 30))]
    assert ladder == [(12, 0.0), (30, 0.0), (30, 0.2), (30, 0.4), (30, 0.6), (30, 0.8), (30, 1.0)]
