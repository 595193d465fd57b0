"""Everything that a client can be told has gone wrong, each with its close code: see docs/protocol.md.

One class, `ClientError`; what differs is data. A client that may come back with the same request, or with its
resume token, is closed with 1011, 1012 or 1013; one that must change something first with 1002, 1007, 1008 or 1009.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """WebSocket close codes that the gateway sends (RFC 6455 and IANA's registry)."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013


class ClientError(Exception):
    """Why a connection ends: `message` says what is wrong, `action` what to do about it."""

    def __init__(self, code: str, close_code: CloseCode, message: str, action: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.close_code = close_code
        self.message = message
        self.action = action

    @property
    def retriable(self) -> bool:
        """Whether the client may come back as it is."""
        return self.close_code in (CloseCode.INTERNAL, CloseCode.RESTART, CloseCode.TRY_LATER)


def bad_parameter(name: str, problem: str) -> ClientError:
    """A query parameter has a value that cannot be used."""
    return ClientError("BAD_PARAMETER", CloseCode.POLICY, f"{name}: {problem}", f"Correct the parameter {name}.")


def bad_token(problem: str) -> ClientError:
    """The resume token is not one that this deployment issued for the session."""
    return ClientError("BAD_RESUME_TOKEN", CloseCode.POLICY, problem, "Start a new session.")


def expired_token(age_s: float) -> ClientError:
    """The resume token is too old."""
    message = f"The resume token is {age_s:.0f} s old, which is more than it is good for."
    return ClientError("RESUME_TOKEN_EXPIRED", CloseCode.POLICY, message, "Start a new session.")


def unknown_session() -> ClientError:
    """The session to resume is over, long enough ago that nothing is known of it."""
    message = "The session is over and can no longer be resumed."
    return ClientError("SESSION_UNKNOWN", CloseCode.POLICY, message, "Start a new session; read its text from history.")


def session_over() -> ClientError:
    """Audio came for a session that has ended."""
    message = "The session has ended: it was closed, or its client was away for too long. This audio has no session."
    return ClientError("SESSION_ENDED", CloseCode.POLICY, message, "Start a new session with the audio that is left.")


def superseded() -> ClientError:
    """Another connection has resumed this session."""
    message = "Another connection has resumed this session."
    return ClientError("SUPERSEDED", CloseCode.POLICY, message, "Go on with the newer connection.")


def unreadable_audio(problem: str) -> ClientError:
    """The audio is not what the parameters, or its own header, say."""
    action = "Send a WAV file of 16-bit PCM, or raw samples with encoding=linear16 and sample_rate."
    return ClientError("DATA-0000", CloseCode.POLICY, f"The audio cannot be read: {problem}", action)


def bad_message(problem: str) -> ClientError:
    """A text frame holds no message."""
    action = 'Send audio in binary frames; in text frames send {"type": "KeepAlive"}, "Finalize" or "CloseStream".'
    return ClientError("BAD_MESSAGE", CloseCode.POLICY, f"The text message cannot be read: {problem}", action)


def silent_client(timeout_s: float) -> ClientError:
    """Nothing at all came from the client."""
    message = f"Neither audio nor a text message was received for {timeout_s:g} s."
    return ClientError("NET-0001", CloseCode.INTERNAL, message, "Send audio, or KeepAlive every 3 to 5 s.")


def slow_client(timeout_s: float) -> ClientError:
    """The client does not read what is sent to it."""
    message = f"The client did not read its messages for {timeout_s:g} s."
    return ClientError("SLOW_CLIENT", CloseCode.TRY_LATER, message, "Read from the socket all the time.")


def not_durable() -> ClientError:
    """Audio could not be written to the log."""
    message = "The audio after the last acknowledged position could not be stored."
    return ClientError("NOT_DURABLE", CloseCode.TRY_LATER, message, "Resume the session, from the last Ack.")


def late_finals(timeout_s: float) -> ClientError:
    """The session's audio is stored, its text is not there yet."""
    message = f"The session is closed, but its text did not come within {timeout_s:g} s. It will be stored."
    return ClientError("FINALS_LATE", CloseCode.INTERNAL, message, "Resume the session to receive the rest of it.")


def overloaded(limit: int) -> ClientError:
    """The gateway has all the connections that it takes."""
    message = f"This gateway has {limit} connections, which is all that it takes."
    return ClientError("OVERLOADED", CloseCode.TRY_LATER, message, "Try again in a few seconds, or another gateway.")


def restarting() -> ClientError:
    """The gateway is shutting down."""
    message = "This gateway is shutting down."
    return ClientError("RESTARTING", CloseCode.RESTART, message, "Connect again at once, with the resume token if any.")


def internal() -> ClientError:
    """The gateway's own mistake."""
    message = "The gateway failed; its log says why."
    return ClientError("INTERNAL", CloseCode.INTERNAL, message, "Connect again, with the resume token if any.")
