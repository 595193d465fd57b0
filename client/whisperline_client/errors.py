"""Everything that can go wrong.

WhisperlineError
 ├── StreamError                 the stream is over before its audio was
 │    ├── GatewayUnreachable     no gateway answered within the deadline                    retriable
 │    ├── ConnectionLost         the socket closed or went silent; raised only inside       retriable
 │    ├── GatewayRefused         the gateway said why it will not go on (`code`)            some
 │    └── AudioGone              the gateway wants audio that is no longer in the buffer
 ├── ProtocolError               what came is not the protocol of docs/protocol.md
 └── AudioError                  the file or the microphone cannot be used

A caller tests `error.retriable`: whether the same call, made again, may succeed.
"""

# RFC 6455 and the IANA registry: going away, no status, abnormal, internal error, restart, try again, bad gateway.
RETRIABLE_CLOSE_CODES = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014})
RETRIABLE_HTTP_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class WhisperlineError(Exception):
    """The root of all errors of this package."""

    retriable = False


class StreamError(WhisperlineError):
    """The stream is over before its audio was."""


class GatewayUnreachable(StreamError):
    """No gateway answered, or none kept the stream going, before the deadline."""

    retriable = True


class ConnectionLost(StreamError):
    """The socket closed unexpectedly or went silent. The client reconnects, so callers do not see it."""

    retriable = True


class GatewayRefused(StreamError):
    """The gateway said why it will not go on. `code` is its error code, `close_code` the socket's."""

    def __init__(self, code: str, message: str, close_code: int | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.close_code = close_code
        self.retriable = close_code in RETRIABLE_CLOSE_CODES


class AudioGone(StreamError):
    """The gateway asks to go on from a position whose audio the client no longer has."""


class ProtocolError(WhisperlineError):
    """What the gateway sent is not the protocol."""


class AudioError(WhisperlineError):
    """A file or a microphone cannot be used as a source of audio."""
