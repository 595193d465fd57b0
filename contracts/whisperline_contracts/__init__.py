"""The messages and topics that Whisperline's processes share.

Errors:

    UnreadableMessage   a record that cannot be read: it goes to the dead letters with `reason`
"""

from whisperline_contracts.audio import AudioChunk, AudioKind, StreamOptions
from whisperline_contracts.dead_letter import DeadLetter
from whisperline_contracts.events import (
    Event,
    Final,
    Finalized,
    Partial,
    Resumed,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    SpeechStarted,
    UtteranceEnd,
    Word,
    decode_event,
    encode_event,
)
from whisperline_contracts.progress import Level, Memory, Progress, Said, decode_progress, encode_progress
from whisperline_contracts.version import SCHEMA_VERSION, UnreadableMessage

__all__ = [
    "SCHEMA_VERSION",
    "AudioChunk",
    "AudioKind",
    "DeadLetter",
    "Event",
    "Final",
    "Finalized",
    "Level",
    "Memory",
    "Partial",
    "Progress",
    "Resumed",
    "Said",
    "SegmentEnd",
    "SessionEnd",
    "SessionStart",
    "SpeechStarted",
    "StreamOptions",
    "UnreadableMessage",
    "UtteranceEnd",
    "Word",
    "decode_event",
    "decode_progress",
    "encode_event",
    "encode_progress",
]
