from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_client import ConnectionLost, ListenOptions, RetryPolicy, events
from whisperline_client.options import is_loopback, listen_url
from whisperline_client.retry import Outage
from whisperline_client.session import SessionState

FINAL = events.Final(0, 0, 100, "ask", (), 1.0, speech_final=True, from_finalize=False)


def new_session(retry: RetryPolicy | None = None) -> SessionState:
    """Return the state of a session with a buffer of two minutes."""
    return SessionState(ListenOptions(), retry or RetryPolicy(), 120)


@given(st.lists(st.integers(0, 6), max_size=40))
def test_finals_come_once_and_in_order(indices: list[int]) -> None:
    """The session passes on finals 0, 1, 2… in order, in whatever order they arrive; a missing one is an error."""
    session, delivered = new_session(), []
    for index in indices:
        try:
            event = session.apply_message(replace(FINAL, segment_index=index), 0.0)
        except ConnectionLost:
            assert index > session.next_segment_index
            continue
        if isinstance(event, events.Final):
            delivered.append(event.segment_index)
    assert delivered == list(range(len(delivered)))


def test_partials_of_a_closed_segment() -> None:
    """A partial that comes after its final is dropped."""
    session = new_session()
    session.apply_message(FINAL, 0.0)
    assert session.apply_message(events.Partial(0, 0, 50, "as", ""), 0.0) is None
    assert session.apply_message(events.Partial(1, 0, 50, "no", ""), 0.0) is not None


def test_a_summary_that_counts_more_finals() -> None:
    """A session does not end while finals are missing."""
    session = new_session()
    session.apply_message(FINAL, 0.0)
    assert session.apply_message(events.Metadata("s", 100, 1), 0.0) is None
    with pytest.raises(ConnectionLost, match="1 of 2"):
        session.apply_message(events.Metadata("s", 100, 2), 0.0)


def test_the_query_of_a_resumed_session() -> None:
    """The query names the latest token and the next final."""
    session = new_session()
    assert "session_id" not in session.query()
    session.apply_message(events.Started("s", "c", "first"), 0.0)
    session.apply_message(events.Ack(0, "latest"), 0.0)
    session.apply_message(FINAL, 0.0)
    query = session.query()
    assert (query["session_id"], query["resume_token"], query["finals_from"]) == ("s", "latest", "1")


def test_the_delay_counts_from_the_last_word() -> None:
    """The delay of a final counts from when its last word was appended, not from the silence after it."""
    session = new_session()
    session.append_audio(bytes(3200), 10.0)
    session.append_audio(bytes(3200), 11.0)
    final = session.apply_message(replace(FINAL, end_ms=200, words=(events.Word("ask", 0, 90, 1.0),)), 12.5)
    assert isinstance(final, events.Final)
    assert final.delay_s == 2.5


@given(st.integers(0, 200), st.floats(0, 1))
def test_backoff(attempt: int, chance: float) -> None:
    """A delay grows to its ceiling and never beyond."""
    policy = RetryPolicy(0.2, 5.0)
    assert 0.1 <= policy.delay_s(attempt, chance) <= 5.0
    assert policy.delay_s(attempt + 1, chance) >= policy.delay_s(attempt, chance)


def test_the_deadline_counts_from_the_last_progress() -> None:
    """Attempts end at the deadline, which is shorter before a session is open; progress starts it anew."""
    outage = Outage(RetryPolicy(1.0, 1.0, deadline_s=5.0, start_deadline_s=2.0))
    assert outage.next_delay_s(90.0, 1.0) == 1.0
    assert outage.next_delay_s(91.5, 1.0) is None
    outage.note_progress()
    outage.session_open = True
    assert outage.next_delay_s(100.0, 1.0) == 1.0
    assert outage.next_delay_s(104.0, 1.0) == 1.0
    assert outage.next_delay_s(104.5, 1.0) is None
    outage.note_progress()
    assert outage.next_delay_s(200.0, 1.0) == 1.0


def test_options_with_several_values() -> None:
    """Key terms and languages are repeated in the URL, and left out where there are none."""
    several = ListenOptions(keyterms=["Ott & Co", "Whisperline"], languages=["de", "en"]).query()
    url = listen_url("ws://a", several)
    assert url.endswith("&detect_language=de&detect_language=en&keyterm=Ott+%26+Co&keyterm=Whisperline")
    assert "keyterm" not in listen_url("ws://a", ListenOptions().query())
    assert "language" not in listen_url("ws://a", ListenOptions().query())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://a:1", "ws://a:1/v1/listen?x=1"),
        ("https://a/speech/", "wss://a/speech/v1/listen?x=1"),
        ("localhost:8080", "ws://localhost:8080/v1/listen?x=1"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    """A gateway's URL may have any usual scheme, or none."""
    assert listen_url(url, {"x": "1"}) == expected


def test_a_wrong_url() -> None:
    """A URL that names no gateway is refused with an example of a valid one."""
    with pytest.raises(ValueError, match=r"ftp.*ws://127\.0\.0\.1:8080"):
        listen_url("ftp://a", {})


def test_loopback() -> None:
    """Only URLs of this machine bypass a proxy."""
    assert is_loopback("ws://127.0.0.1:8080")
    assert is_loopback("http://localhost")
    assert not is_loopback("wss://speech.example.org")
