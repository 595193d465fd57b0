"""Read and write the records of the topic `audio_chunks`. The key is the session id, the value the audio bytes.

Everything else is in the headers, each a UTF-8 string, so that a record can be routed without touching its
audio. All records of a session have the same key and so are in one partition, whose order is authoritative.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whisperline_contracts.topics import MAX_AUDIO_BYTES
from whisperline_contracts.version import SCHEMA_VERSION, UnreadableMessage, check_version

Header = tuple[str, bytes]

BYTES_PER_SAMPLE = 2  # linear16
MIN_SAMPLE_RATE = 8_000  # Hz
MAX_SAMPLE_RATE = 48_000  # Hz
MAX_CHANNELS = 8


class AudioKind(StrEnum):
    """The purpose of a record of `audio_chunks`.

    START opens the session. AUDIO carries samples (or none, as a keep-alive of the connection). FINALIZE closes
    the open segment now. RESUME names a new connection, and with it a new reply partition. END closes the session.
    """

    START = "start"
    AUDIO = "audio"
    FINALIZE = "finalize"
    RESUME = "resume"
    END = "end"


class StreamOptions(BaseModel):
    """The client's options for its session. Every record carries them, so that a replay may begin anywhere."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    language: str | None = Field(default="en", pattern=r"^[a-z]{2,3}$")  # None: detect
    languages: tuple[str, ...] = Field(default=(), max_length=100)  # that detection may choose from; empty: all
    keyterms: tuple[str, ...] = Field(default=(), max_length=100)  # words and names to expect
    interim_results: bool = True  # the client wants partials
    priority: Literal["live", "file"] = "live"
    # Silence that closes a segment. None: the segment closes when the speaker is done.
    endpointing_ms: int | None = Field(default=None, ge=10, le=5_000)
    utterance_end_ms: int | None = Field(default=None, ge=1_000, le=10_000)  # silence that ends an utterance


@dataclass(frozen=True)
class AudioChunk:
    """One record of `audio_chunks`.

    `position` is the number of samples per channel, at `sample_rate`, from the start of the session to the first
    sample of `data`. A session's audio is contiguous, so audio that was sent twice is recognised by its position.
    `sequence` counts the records of one connection from 0. For END, `position` is where the session's audio ends.
    """

    session_id: str
    connection_id: str
    client_id: str
    kind: AudioKind
    sequence: int
    position: int  # samples per channel
    sample_rate: int  # Hz
    reply_partition: int
    channels: int = 1
    encoding: str = "linear16"
    options: StreamOptions = field(default_factory=StreamOptions)
    traceparent: str | None = None  # W3C Trace Context
    data: bytes = b""

    @property
    def samples(self) -> int:
        """Return the number of samples of each channel in `data`."""
        return len(self.data) // (BYTES_PER_SAMPLE * self.channels)

    def headers(self) -> list[Header]:
        """Return the record's headers; `data` is its value and `session_id`, in UTF-8, its key."""
        values = {
            "schema": SCHEMA_VERSION,
            "session_id": self.session_id,
            "connection_id": self.connection_id,
            "client_id": self.client_id,
            "kind": self.kind.value,
            "sequence": str(self.sequence),
            "position": str(self.position),
            "encoding": self.encoding,
            "sample_rate": str(self.sample_rate),
            "channels": str(self.channels),
            "reply_partition": str(self.reply_partition),
            "options": self.options.model_dump_json(exclude_defaults=True),
        }
        if self.traceparent is not None:
            values["traceparent"] = self.traceparent
        return [(name, value.encode()) for name, value in values.items()]

    @classmethod
    def from_record(cls, headers: Iterable[Header], value: bytes | None) -> "AudioChunk":
        """Read a record. Raises `UnreadableMessage`, with a human-readable reason, if any part of it is wrong."""
        try:
            fields = _Headers((name, value.decode()) for name, value in headers)
        except (UnicodeDecodeError, AttributeError) as error:
            raise UnreadableMessage(f"a header is not UTF-8 text: {error}") from error
        check_version(fields["schema"])
        if fields["kind"] not in set(AudioKind):
            raise UnreadableMessage(f"kind {fields['kind'][:32]!r} is not known")
        try:
            options = StreamOptions.model_validate_json(fields["options"])
        except ValidationError as error:
            raise UnreadableMessage(f"header 'options' is wrong: {error.errors()[0]['msg']}") from error
        chunk = cls(
            session_id=_name(fields, "session_id"),
            connection_id=_name(fields, "connection_id"),
            client_id=_name(fields, "client_id"),
            kind=AudioKind(fields["kind"]),
            sequence=_integer(fields, "sequence", 0),
            position=_integer(fields, "position", 0),
            sample_rate=_integer(fields, "sample_rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE),
            reply_partition=_integer(fields, "reply_partition", 0),
            channels=_integer(fields, "channels", 1, MAX_CHANNELS),
            encoding=fields["encoding"],
            options=options,
            traceparent=fields.get("traceparent"),
            data=value or b"",
        )
        if chunk.encoding != "linear16":
            raise UnreadableMessage(f"encoding {chunk.encoding[:32]!r} is not known")
        if len(chunk.data) > MAX_AUDIO_BYTES:
            raise UnreadableMessage(f"{len(chunk.data)} bytes of audio in one record; the limit is {MAX_AUDIO_BYTES}")
        if len(chunk.data) % (BYTES_PER_SAMPLE * chunk.channels):
            raise UnreadableMessage(f"{len(chunk.data)} bytes are no whole number of {chunk.channels}-channel samples")
        if chunk.data and chunk.kind is not AudioKind.AUDIO:
            raise UnreadableMessage(f"a record of kind {chunk.kind} must not carry audio")
        return chunk


class _Headers(dict[str, str]):
    def __missing__(self, name: str) -> str:
        raise UnreadableMessage(f"header {name!r} is missing")


def _name(fields: _Headers, name: str) -> str:
    value = fields[name]
    if not 1 <= len(value) <= 128:
        raise UnreadableMessage(f"header {name!r} must have 1 to 128 characters, has {len(value)}")
    return value


def _integer(fields: _Headers, name: str, low: int, high: int = 2**62) -> int:
    text = fields[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise UnreadableMessage(f"header {name!r} is {text[:32]!r}, not a whole number from {low} to {high}")
    return int(text)
