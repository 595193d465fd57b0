"""Read and write the compacted topic `session_progress`. The key is the session id, the value its progress as JSON.

This topic decides what was transcribed. Before a transcriber publishes a final, it writes a record here that carries
the final, and reads it back. It publishes only if its record was the first with that `revision`, so the order of the
log settles every race between an old owner of a partition and a new one. A record counts if its revision is one above
that of the last record that counted; readers ignore all others. After a crash, the new owner publishes the carried
events again, unchanged, and goes on from `base`.

A tombstone (a record without a value) is written once the session has ended and no replay can reach its audio.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whisperline_contracts.audio import StreamOptions
from whisperline_contracts.events import Final, SessionEnd
from whisperline_contracts.version import SCHEMA_VERSION, UnreadableMessage, check_json_version


class Said(BaseModel):
    """A final that later ones are decoded with: its text and its audio, samples [start, end) at 16 kHz."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    start: int = Field(ge=0)
    end: int = Field(ge=0)


class Level(BaseModel):
    """The offset and the loudness of a session's audio up to its replay start; see the transcriber's `stream/level.py`.

    `offset` is in 1/256 of a sample, None if nothing was heard; `speech_db` and `noise_db` are in dB of full scale.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    offset: int | None = None
    speech_db: float = -96.0
    noise_db: float = 0.0


class Memory(BaseModel):
    """The texts and languages of a session so far. They are in the log, so that a replay decodes with the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    said: tuple[Said, ...] = ()  # the latest finals, the oldest first
    languages: dict[str, float] = Field(default_factory=dict)  # evidence for each language, if it is detected


class Progress(BaseModel):
    """A session's progress: all audio before sample `base` (at 16 kHz) is decided, in `next_segment_index` finals."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_version: str = Field(default=SCHEMA_VERSION, alias="schema")
    session_id: str
    connection_id: str
    client_id: str
    reply_partition: int
    sample_rate: int  # Hz, of the session's own audio
    channels: int
    options: StreamOptions
    revision: int = Field(ge=1)
    owner: str  # the process that wrote this record
    attached_at: int = Field(ge=0)  # offset in audio_chunks of the START or RESUME that named the connection
    base: int = Field(ge=0)  # samples at 16 kHz
    next_segment_index: int = Field(ge=0)
    # End of the last word of the finals; None if its UtteranceEnd was sent, or if there was no word.
    last_word_end_ms: int | None = None
    memory: Memory = Memory()
    level: Level = Level()  # at `base`
    final: Final | None = None  # the final that this record decides, if it decides one
    end: SessionEnd | None = None  # set when the session is over

    def follows(self, before: Self | None) -> bool:
        """Return True if this record counts, given `before`, the last record that counted."""
        return before is None or self.revision == before.revision + 1


def encode_progress(progress: Progress) -> bytes:
    """Return the record's value as UTF-8 JSON."""
    return progress.model_dump_json(by_alias=True).encode()


def decode_progress(value: bytes) -> Progress:
    """Read a record's value. Raises `UnreadableMessage` with a human-readable reason."""
    try:
        check_json_version(value)
        return Progress.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnreadableMessage(f"progress cannot be read: {first['loc']}: {first['msg']}") from error
