"""The core's messages, which each protocol translates from and to the frames of its own API.

What the transcriber says about a session goes to the client as the events of `whisperline_contracts`. Positions are
samples a channel from the start of the session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from whisperline_contracts import Final, Finalized, Partial, SpeechStarted, StreamOptions, UtteranceEnd

from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.pcm import PcmFormat

# From the client.


@dataclass(frozen=True)
class Resume:
    """Name the session that a connection wants to continue, and the first final that its client lacks."""

    session_id: str
    token: str
    finals_from: int


@dataclass(frozen=True)
class Open:
    """Ask for a connection. `pcm` is None when the audio comes in a container (WAV) whose header has the format.

    A connection with `resume` takes format, options and client from its token; `acks` and `vad_events` are its own.
    """

    pcm: PcmFormat | None
    options: StreamOptions
    client_id: str | None
    acks: bool
    vad_events: bool
    resume: Resume | None


@dataclass(slots=True)
class Audio:
    """Carry audio, cut anywhere."""

    data: bytes


@dataclass(frozen=True)
class Finalize:
    """Close the open segment now."""


@dataclass(frozen=True)
class CloseStream:
    """End the session: no more audio will come."""


@dataclass(frozen=True)
class KeepAlive:
    """Show that the client is still there."""


@dataclass(frozen=True)
class UnknownMessage:
    """Stand for a message of a type that the protocol does not know. It gets an Error, and the connection goes on."""

    text: str


ClientMessage: TypeAlias = Audio | Finalize | CloseStream | KeepAlive | UnknownMessage

# To the client.


@dataclass(frozen=True)
class SessionStarted:
    """Say that a session is durable, from its first sample on."""

    session_id: str
    connection_id: str
    resume_token: str


@dataclass(frozen=True)
class SessionResumed:
    """Say from which sample a resumed session continues."""

    session_id: str
    connection_id: str
    resume_token: str
    position: int
    sample_rate: int  # Hz


@dataclass(frozen=True)
class Ack:
    """Say that the audio before `position` is durable."""

    resume_token: str
    position: int
    sample_rate: int  # Hz


@dataclass(frozen=True)
class Summary:
    """Sum up a session that was closed normally."""

    session_id: str
    created: datetime
    duration_ms: int
    channels: int
    segment_count: int


# A ClientError is the last message of the connection that it ends.
ServerMessage: TypeAlias = (
    SessionStarted
    | SessionResumed
    | Ack
    | SpeechStarted
    | Partial
    | Final
    | Finalized
    | UtteranceEnd
    | Summary
    | UnknownMessage
    | ClientError
)


class Handshake(NamedTuple):
    """The answer to a WebSocket handshake, as far as a protocol decides it."""

    subprotocol: str | None
    headers: Sequence[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """A text frame, and the type of the message in it as the protocol calls it (a label of metrics)."""

    type: str
    text: str


class CloseFrame(NamedTuple):
    """The code and the reason of a WebSocket close frame."""

    code: int
    reason: str


class ClientProtocol(Protocol):
    """Translates for one connection. It does no I/O, and keeps no state but what its messages need, such as a count."""

    path: ClassVar[str]

    def open(self, parameters: Mapping[str, Sequence[str]]) -> Open:
        """Read the query of the URL: the values of each parameter, in order. Raises `ClientError`."""

    def handshake(self, session_id: str, subprotocols: Sequence[str]) -> Handshake:
        """Return what is added to the answer to a handshake that offers `subprotocols`."""

    def decode_binary(self, data: bytes) -> ClientMessage:
        """Read a binary frame. Raises `ClientError`."""

    def decode_text(self, text: str) -> ClientMessage:
        """Read a text frame. Raises `ClientError`."""

    def encode(self, message: ServerMessage) -> Frame:
        """Return the next frame of the connection."""

    def error_code(self, failure: ClientError) -> str:
        """Return the protocol's code for an error."""

    def close_frame(self, failure: ClientError | None) -> CloseFrame:
        """Return how a connection is closed: normally, or because of `failure`."""

    def broken_frame(self, failure: ClientError) -> Frame:
        """Return the error for a frame that the WebSocket layer refused, outside the order of other messages."""
