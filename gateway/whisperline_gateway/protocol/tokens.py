"""Resume tokens: what a gateway must know to continue a session that another gateway began, signed with HMAC-SHA256.

A token is `base64url(JSON of the session).position.issued_s.base64url(signature of everything before it)`. Its first
part is the same for all tokens of a connection and is made once, since a gateway issues thousands of tokens a second.
A token is not encrypted: it holds nothing that its client does not know. All gateways of a deployment share a secret.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from whisperline_contracts import StreamOptions

from whisperline_gateway.errors import bad_token, expired_token

MAX_TOKEN_CHARS = 8192  # a URL cannot hold more


class SignedSession(BaseModel):
    """Describe a session in its tokens: its ids, the format of its audio, and its options."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    session_id: str
    client_id: str
    sample_rate: int  # Hz
    channels: int
    encoding: Literal["linear16"] = "linear16"
    options: StreamOptions


@dataclass(frozen=True)
class ResumeToken:
    """A verified token. The audio before `position` (samples a channel) was durable when it was issued."""

    session: SignedSession
    position: int


class TokenIssuer:
    """Issues the tokens of one session."""

    def __init__(self, session: SignedSession, secret: bytes) -> None:
        self._prefix = urlsafe_b64encode(session.model_dump_json().encode()).decode()
        self._secret = secret

    def issue(self, position: int, now_s: float) -> str:
        """Return a token which says that the audio before `position` is durable."""
        signed = f"{self._prefix}.{position}.{int(now_s)}"
        return f"{signed}.{_signature(signed, self._secret)}"


def verify(text: str, secret: bytes, *, session_id: str, now_s: float, lifetime_s: float) -> ResumeToken:
    """Read a token. Raises `ClientError` if it is forged, damaged, too old, or belongs to another session."""
    signed, _, signature = text[:MAX_TOKEN_CHARS].rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(signed, secret).encode()):
        raise bad_token("The resume token was not issued by this deployment, or is damaged.")
    try:
        prefix, position, issued_s = signed.split(".")
        token = ResumeToken(SignedSession.model_validate_json(urlsafe_b64decode(prefix)), int(position))
        age_s = now_s - int(issued_s)
    except (ValidationError, ValueError):
        raise bad_token("The resume token has a version that this gateway does not know.") from None
    if token.session.session_id != session_id:
        raise bad_token("The resume token belongs to another session.")
    if age_s > lifetime_s:
        raise expired_token(age_s, lifetime_s)
    return token


def _signature(signed: str, secret: bytes) -> str:
    return urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).decode()
