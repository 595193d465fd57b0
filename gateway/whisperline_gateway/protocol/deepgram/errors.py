"""The gateway's errors as Deepgram's clients know them: their codes, and the close codes of RFC 6455."""

from enum import IntEnum
from typing import NamedTuple

from whisperline_gateway.errors import ClientError

_MAX_REASON_BYTES = 120  # a close frame has room for 123


class CloseCode(IntEnum):
    """WebSocket close codes (RFC 6455 and IANA's registry). A client may come back as it is after the last three."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013


class _Sent(NamedTuple):
    close_code: CloseCode
    code: str | None = None  # None: the gateway's own
    action: str | None = None  # None: the gateway's own


# Errors that are not listed close with TRY_LATER if they are retriable, else with POLICY.
_SENT = {
    "UNREADABLE_AUDIO": _Sent(
        CloseCode.POLICY,
        "DATA-0000",
        "Send a WAV file of 16-bit PCM, or raw samples with encoding=linear16 and sample_rate.",
    ),
    "SILENT_CLIENT": _Sent(CloseCode.INTERNAL, "NET-0001", "Send audio, or KeepAlive every 3 to 5 s."),
    "FINALS_LATE": _Sent(CloseCode.INTERNAL),
    "INTERNAL": _Sent(CloseCode.INTERNAL),
    "RESTARTING": _Sent(CloseCode.RESTART),
    "FRAME_TOO_LARGE": _Sent(CloseCode.TOO_BIG),
    "NOT_UTF8": _Sent(CloseCode.INVALID_TEXT),
    "PROTOCOL": _Sent(CloseCode.PROTOCOL_ERROR),
}


def close_code(failure: ClientError | None) -> CloseCode:
    """Return the close code that goes with an error, or with a normal end."""
    if failure is None:
        return CloseCode.NORMAL
    if failure.code in _SENT:
        return _SENT[failure.code].close_code
    return CloseCode.TRY_LATER if failure.retriable else CloseCode.POLICY


def close_reason(failure: ClientError | None) -> str:
    """Return the reason of the close frame: code and message, as far as they fit."""
    if failure is None:
        return ""
    return f"{error_code(failure)}: {failure.message}".encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def error_code(failure: ClientError) -> str:
    """Return the code that the client receives."""
    sent = _SENT.get(failure.code)
    return sent.code if sent is not None and sent.code is not None else failure.code


def error_action(failure: ClientError) -> str:
    """Return what the client can do, in the words of this API."""
    sent = _SENT.get(failure.code)
    return sent.action if sent is not None and sent.action is not None else failure.action


def bad_parameter(name: str, problem: str) -> ClientError:
    """Return the error of a query parameter whose value cannot be used."""
    return ClientError("BAD_PARAMETER", f"{name}: {problem}", f"Correct the parameter {name}.")


def bad_message(problem: str) -> ClientError:
    """Return the error of a text frame that holds no message."""
    action = 'Send audio in binary frames; in text frames send {"type": "KeepAlive"}, "Finalize" or "CloseStream".'
    return ClientError("BAD_MESSAGE", f"The text message cannot be read: {problem}.", action)
