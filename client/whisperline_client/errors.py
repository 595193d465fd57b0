"""Every error that this package raises.

WhisperlineError
 ├── StreamError                 the stream ended too early
 │    ├── GatewayUnreachable     no gateway answered before the deadline                     retriable
 │    ├── ConnectionLost         the socket closed or fell silent; never leaves the client   retriable
 │    ├── GatewayRefused         the gateway refused to go on and said why (`code`)          some
 │    └── AudioGone              the gateway asks for audio that has left the buffer
 ├── ProtocolError               a message does not follow docs/protocol.md
 └── AudioError                  the file or the microphone cannot be used

Callers test `error.retriable`: it is True when the same call may succeed if it is made again.
"""

# RFC 6455 and the IANA registry: going away, no status, abnormal, internal error, restart, try again, bad gateway.
RETRIABLE_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014})
RETRIABLE_HTTP_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class WhisperlineError(Exception):
    """The root of all errors of this package."""

    retriable = False


class StreamError(WhisperlineError):
    """The stream ended before all of its audio was transcribed."""


class GatewayUnreachable(StreamError):
    """Until the deadline no gateway answered, or none made progress."""

    retriable = True


class ConnectionLost(StreamError):
    """The socket closed unexpectedly or fell silent. The client reconnects, so callers never see this error."""

    retriable = True


class GatewayRefused(StreamError):
    """The gateway refused to go on. `code` is its error code, `close_code` that of the WebSocket."""

    def __init__(self, code: str, message: str, close_code: int | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.close_code = close_code
        self.retriable = close_code in RETRIABLE_CLOSE_CODES


class AudioGone(StreamError):
    """The gateway asks for audio that the client no longer has."""


class ProtocolError(WhisperlineError):
    """The gateway sent a message that does not follow the protocol."""


class AudioError(WhisperlineError):
    """A file or a microphone cannot be used as a source of audio."""
