"""Whisperline's client: it streams speech to any of several gateways, and survives the loss of any of them.

    audio = AudioFile.open("speech.wav")
    async with stream(audio.live(), options=audio.options()) as events:
        async for event in events:
            ...

The command `whisperline` is built on it.
"""

from whisperline_client.client import Client, Stream, stream
from whisperline_client.errors import (
    AudioError,
    AudioGone,
    ConnectionLost,
    GatewayRefused,
    GatewayUnreachable,
    ProtocolError,
    StreamError,
    WhisperlineError,
)
from whisperline_client.events import (
    Ack,
    Closed,
    Disconnected,
    Event,
    Final,
    Finalized,
    Partial,
    Resumed,
    SpeechStarted,
    Started,
    UtteranceEnd,
    Word,
)
from whisperline_client.options import DEFAULT_URL, ListenOptions
from whisperline_client.retry import RetryPolicy
from whisperline_client.sources import AudioFile, pace

__all__ = [
    "DEFAULT_URL",
    "Ack",
    "AudioError",
    "AudioFile",
    "AudioGone",
    "Client",
    "Closed",
    "ConnectionLost",
    "Disconnected",
    "Event",
    "Final",
    "Finalized",
    "GatewayRefused",
    "GatewayUnreachable",
    "ListenOptions",
    "Partial",
    "ProtocolError",
    "Resumed",
    "RetryPolicy",
    "SpeechStarted",
    "Started",
    "Stream",
    "StreamError",
    "UtteranceEnd",
    "WhisperlineError",
    "Word",
    "pace",
    "stream",
]
