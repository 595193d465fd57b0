"""Read and write the records of the topic `transcriptions`. The key is the session id, the value one JSON event.

Times are milliseconds from the start of the session's audio; `time_ms` is when the event was made, in
milliseconds since the Unix epoch. A final is identified by `(session_id, segment_index)`: the first one written
is the only one that counts, and a process that writes it again writes the same content.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from whisperline_contracts.audio import StreamOptions
from whisperline_contracts.version import SCHEMA_VERSION, UnreadableMessage, check_json_version


class SegmentEnd(StrEnum):
    """The reason why a segment was closed."""

    SILENCE = "silence"
    FINALIZE = "finalize"
    END = "end"
    MAX_LENGTH = "max_length"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Event(_Message):
    schema_version: str = Field(default=SCHEMA_VERSION, alias="schema")
    session_id: str
    connection_id: str
    client_id: str
    time_ms: int

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Word(_Message):
    """One word of a segment, with its times in the session and the mean probability of its tokens."""

    word: str
    start_ms: int
    end_ms: int
    confidence: float = Field(ge=0, le=1)


class SessionStart(_Event):
    """A session has begun. After a replay it may be sent again, unchanged."""

    type: Literal["session_start"] = "session_start"
    sample_rate: int  # Hz
    channels: int
    options: StreamOptions


class SpeechStarted(_Event):
    """Words were heard in segment `segment_index`, which begins at `start_ms`."""

    type: Literal["speech_started"] = "speech_started"
    segment_index: int
    start_ms: int


class Partial(_Event):
    """The text of an open segment so far. It begins with `stable_text`.

    Later partials keep the stable text. Only the text at a pause, which is the final's if the speaker is done, may
    correct it. An empty `text` takes back what was shown: the segment has no words, and no final follows.
    """

    type: Literal["partial"] = "partial"
    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    stable_text: str
    words: tuple[Word, ...] = ()  # of `text`; their times are estimates
    confidence: float = Field(default=0, ge=0, le=1)


class Final(_Event):
    """The text of a closed segment. A segment without words has no final."""

    type: Literal["final"] = "final"
    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...]
    language: str
    confidence: float = Field(ge=0, le=1)
    reason: SegmentEnd
    ends_turn: bool = True  # False if the speaker's turn goes on in the next segment
    model: str
    model_version: str
    position: int  # end of the segment, in samples at the session's own rate: everything before it is decided


class Finalized(_Event):
    """The answer to a FINALIZE that found no open segment."""

    type: Literal["finalized"] = "finalized"
    position_ms: int


class UtteranceEnd(_Event):
    """The silence after the last word has reached the length that the client chose."""

    type: Literal["utterance_end"] = "utterance_end"
    last_word_end_ms: int


class Resumed(_Event):
    """The answer to a RESUME, sent to the new reply partition.

    `position` (samples) is where the durable audio of the session ends. Finals with an index below
    `next_segment_index` were published to the old reply partition; later ones go to the new reply partition.
    """

    type: Literal["resumed"] = "resumed"
    position: int
    next_segment_index: int


class SessionEnd(_Event):
    """The session is over, with `segment_count` segments.

    `reason` is "unknown" if the session is no longer known, and "refused" if its options cannot be honoured:
    `message` then says which, and what would do.
    """

    type: Literal["session_end"] = "session_end"
    segment_count: int
    duration_ms: int
    reason: Literal["closed", "idle", "unknown", "refused"]
    message: str = ""


Event = Annotated[
    SessionStart | SpeechStarted | Partial | Final | Finalized | UtteranceEnd | Resumed | SessionEnd,
    Field(discriminator="type"),
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def encode_event(event: Event) -> bytes:
    """Return the record's value as UTF-8 JSON."""
    return _EVENT.dump_json(event, by_alias=True)


def decode_event(value: bytes | None) -> Event:
    """Read a record's value. Raises `UnreadableMessage` with a human-readable reason."""
    try:
        check_json_version(value or b"")
        return _EVENT.validate_json(value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableMessage(f"event cannot be read: {where}: {first['msg']}") from error
