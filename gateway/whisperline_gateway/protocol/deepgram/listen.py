"""Deepgram's live API as a `ClientProtocol`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.deepgram import errors, messages
from whisperline_gateway.protocol.deepgram.query import parse_query
from whisperline_gateway.protocol.messages import (
    Audio,
    ClientMessage,
    CloseFrame,
    CloseStream,
    Frame,
    Handshake,
    Open,
    ServerMessage,
)


class DeepgramListen:
    """Deepgram's protocol on one connection. It counts the messages, because each carries its number."""

    path: ClassVar[str] = "/v1/listen"

    def __init__(self) -> None:
        self._sequence_id = 0

    def open(self, parameters: Mapping[str, Sequence[str]]) -> Open:
        """Read the query. Raises `ClientError` BAD_PARAMETER."""
        return parse_query(parameters)

    def handshake(self, session_id: str, subprotocols: Sequence[str]) -> Handshake:
        """Return the header that SDKs read. In a browser they offer "token" and their key as subprotocols."""
        return Handshake(next(iter(subprotocols), None), [(b"dg-request-id", session_id.encode())])

    def decode_binary(self, data: bytes) -> ClientMessage:
        """Return the audio of a binary frame; an empty one ends the stream."""
        return Audio(data) if data else CloseStream()

    def decode_text(self, text: str) -> ClientMessage:
        """Read a text frame. Raises `ClientError` BAD_MESSAGE."""
        return messages.decode(text)

    def encode(self, message: ServerMessage) -> Frame:
        """Return the next frame, with its number."""
        frame = messages.encode(message, self._sequence_id)
        self._sequence_id += 1
        return frame

    def error_code(self, failure: ClientError) -> str:
        """Return Deepgram's code for an error, where it has one."""
        return errors.error_code(failure)

    def close_frame(self, failure: ClientError | None) -> CloseFrame:
        """Return the close code, and a reason that begins with the error's code."""
        return CloseFrame(errors.close_code(failure), errors.close_reason(failure))

    def broken_frame(self, failure: ClientError) -> Frame:
        """Return an Error with the number -1, because messages that are still to be sent have the next numbers."""
        return messages.encode(failure, -1)
