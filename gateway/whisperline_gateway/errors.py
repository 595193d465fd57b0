"""The gateway's errors.

    ClientError                   ends a connection; the client receives `code`, `message` and `action`
    ├── SupersededError           another connection has resumed the session
    └── RestartingError           this gateway is shutting down
    ClientDisconnectedError       the client closed the socket, or lost it
    OutboxFullError               the client does not read, and its outbox is full

Every `ClientError` but the two with a class of their own is made by a function below; what differs is data. After a
`retriable` error a client may connect again unchanged; after any other it must change something first. Each protocol
translates them into its own codes and close codes (`protocol.deepgram.errors`). Errors that stop the whole process
come from `whisperline_runtime`.
"""


class ClientError(Exception):
    """End a connection: `message` says what is wrong, `action` what the client can do about it."""

    def __init__(self, code: str, message: str, action: str, *, retriable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.action = action
        self.retriable = retriable


class SupersededError(ClientError):
    """Another connection has resumed this session. It owns the session now, so this one must not end it."""

    def __init__(self) -> None:
        message = "Another connection has resumed this session."
        super().__init__("SUPERSEDED", message, "Continue on the newer connection.")


class RestartingError(ClientError):
    """The gateway is shutting down. Any other gateway can resume the session."""

    def __init__(self) -> None:
        action = "Connect again now, with the resume token if you have one."
        super().__init__("RESTARTING", "This gateway is shutting down.", action, retriable=True)


class ClientDisconnectedError(Exception):
    """The client closed the socket, or lost it."""


class OutboxFullError(Exception):
    """The client does not read its messages, and its outbox is full."""


def bad_token(problem: str) -> ClientError:
    """Return the error of a resume token that this deployment did not issue for the session."""
    return ClientError("BAD_RESUME_TOKEN", problem, "Start a new session.")


def expired_token(age_s: float, lifetime_s: float) -> ClientError:
    """Return the error of a resume token that is too old."""
    message = f"The resume token is {age_s:.0f} s old; tokens expire after {lifetime_s:.0f} s."
    return ClientError("RESUME_TOKEN_EXPIRED", message, "Start a new session.")


def unknown_session() -> ClientError:
    """Return the error of resuming a session that ended so long ago that the transcriber has forgotten it."""
    message = "The session is over and can no longer be resumed."
    return ClientError("SESSION_UNKNOWN", message, "Start a new session. The text of the old one is in the history.")


def session_over() -> ClientError:
    """Return the error of audio that came after its session had ended."""
    message = (
        "The session has ended, because it was closed or its client was away for too long. "
        "The audio that was sent after its end is not part of it."
    )
    return ClientError("SESSION_ENDED", message, "Start a new session with the audio that is left.")


def refused_options(problem: str) -> ClientError:
    """Return the error of options that the model cannot honour; `problem` names the option and what would do."""
    return ClientError("BAD_PARAMETER", problem, "Correct the parameter, or use a deployment whose model can do this.")


def unreadable_audio(problem: str) -> ClientError:
    """Return the error of audio that does not match the parameters, or its own header."""
    action = "Send 16-bit PCM, as a WAV file or as raw samples."
    return ClientError("UNREADABLE_AUDIO", f"The audio cannot be read: {problem}.", action)


def silent_client(timeout_s: float) -> ClientError:
    """Return the error of a client that sends nothing at all."""
    message = f"The client sent neither audio nor a message for {timeout_s:g} s."
    return ClientError("SILENT_CLIENT", message, "Send audio, or a sign of life every few seconds.", retriable=True)


def slow_client(timeout_s: float) -> ClientError:
    """Return the error of a client that does not read what is sent to it."""
    message = f"The client did not read its messages for {timeout_s:g} s."
    return ClientError("SLOW_CLIENT", message, "Read from the socket continuously.", retriable=True)


def not_durable() -> ClientError:
    """Return the error of audio that could not be written to Kafka."""
    message = "The audio after the last acknowledged position could not be stored."
    return ClientError("NOT_DURABLE", message, "Resume the session from the last acknowledgement.", retriable=True)


def late_finals(timeout_s: float) -> ClientError:
    """Return the error of a session whose audio is stored and whose text has not come yet."""
    message = f"The session is closed, but its text did not arrive within {timeout_s:g} s. It will still be stored."
    return ClientError("FINALS_LATE", message, "Resume the session to receive the rest.", retriable=True)


def overloaded(limit: int) -> ClientError:
    """Return the error of a gateway that already has its maximum number of connections."""
    message = f"This gateway already serves {limit} connections, its maximum."
    return ClientError("OVERLOADED", message, "Try again in a few seconds, or use another gateway.", retriable=True)


def internal() -> ClientError:
    """Return the error of a defect in the gateway."""
    message = "The gateway failed. Its log says why."
    return ClientError("INTERNAL", message, "Connect again, with the resume token if you have one.", retriable=True)
