"""Resume tokens: what a gateway must know of a session that another one began, signed with HMAC-SHA256.

A token is `base64url(JSON) . base64url(signature)`. It is not encrypted: it holds nothing that its client does
not know. Every gateway of a deployment has the same secret.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from whisperline_contracts import StreamOptions

from whisperline_gateway.errors import bad_token, expired_token

MAX_TOKEN_CHARS = 2048


class ResumeToken(BaseModel):
    """What is signed. `position` (samples a channel) was durable when the token was issued."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    session_id: str
    client_id: str
    sample_rate: int  # Hz
    channels: int
    encoding: Literal["linear16"] = "linear16"
    options: StreamOptions
    position: int = Field(ge=0)
    issued_s: int  # since the Unix epoch


def sign(token: ResumeToken, secret: bytes) -> str:
    """Return the token as the client gets it."""
    payload = urlsafe_b64encode(token.model_dump_json().encode())
    return f"{payload.decode()}.{_signature(payload, secret)}"


def verify(text: str, secret: bytes, *, session_id: str, now_s: float, lifetime_s: float) -> ResumeToken:
    """Read a token. Raises `ClientError` if it is forged, damaged, too old, or another session's."""
    payload, _, signature = text[:MAX_TOKEN_CHARS].partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload.encode(), secret).encode()):
        raise bad_token("The resume token was not issued here, or is damaged.")
    try:
        token = ResumeToken.model_validate_json(urlsafe_b64decode(payload))
    except (ValidationError, ValueError):
        raise bad_token("The resume token is of another version.") from None
    if token.session_id != session_id:
        raise bad_token("The resume token belongs to another session.")
    if now_s - token.issued_s > lifetime_s:
        raise expired_token(now_s - token.issued_s)
    return token


def _signature(payload: bytes, secret: bytes) -> str:
    return urlsafe_b64encode(hmac.new(secret, payload, hashlib.sha256).digest()).decode()
