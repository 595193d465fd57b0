"""A resume token is good for its own session, for a while, and only as it was issued."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import StreamOptions
from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.tokens import ResumeToken, SignedSession, TokenIssuer, verify

SECRET = b"a secret of some length"
SESSION = SignedSession(
    session_id="session", client_id="client", sample_rate=44_100, channels=2,
    options=StreamOptions(language=None, interim_results=False, utterance_end_ms=1_500),
)  # fmt: skip


def issue(session: SignedSession = SESSION, position: int = 77) -> str:
    return TokenIssuer(session, SECRET).issue(position, 1_000.9)


def check(text: str, session_id: str = "session", now_s: float = 1_010, secret: bytes = SECRET) -> ResumeToken:
    return verify(text, secret, session_id=session_id, now_s=now_s, lifetime_s=60)


@given(st.integers(0, 2**62), st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100))
def test_what_was_signed_comes_back(position: int, session_id: str, client_id: str) -> None:
    """A token holds all that a gateway must know to go on."""
    session = SESSION.model_copy(update={"session_id": session_id, "client_id": client_id})
    assert check(issue(session, position), session_id) == ResumeToken(session, position)


@given(st.integers(0, 10_000), st.integers(1, 127))
def test_a_changed_token_is_refused(at: int, change: int) -> None:
    """A token is refused if any of its characters is changed."""
    text = issue()
    at %= len(text)
    forged = text[:at] + chr(ord(text[at]) ^ change) + text[at + 1 :]
    with pytest.raises(ClientError) as caught:
        check(forged)
    assert caught.value.code == "BAD_RESUME_TOKEN"


@given(st.text())
def test_no_text_breaks_the_check(text: str) -> None:
    """Any text that is not a token is refused."""
    with pytest.raises(ClientError):
        check(text)


@pytest.mark.parametrize(
    ("session_id", "secret", "now_s", "code"),
    [
        ("another", SECRET, 1_010, "BAD_RESUME_TOKEN"),
        ("session", b"the secret of another deployment", 1_010, "BAD_RESUME_TOKEN"),
        ("session", SECRET, 1_061, "RESUME_TOKEN_EXPIRED"),
    ],
)
def test_a_token_is_for_one_session_one_deployment_and_a_while(
    session_id: str, secret: bytes, now_s: float, code: str
) -> None:
    """Another session's, another deployment's, or an old token is refused with its own code."""
    with pytest.raises(ClientError) as caught:
        check(issue(), session_id, now_s, secret)
    assert caught.value.code == code
