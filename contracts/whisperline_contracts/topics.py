"""Name every Kafka topic, with its partitions and settings.

`audio_chunks` and `session_progress` have the same partitions, and a session has the same partition number in
both: the process that owns a session's audio owns its progress. `transcriptions` has a partition for each gateway
ordinal, which is that gateway's reply partition.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

AUDIO_CHUNKS = "audio_chunks"
SESSION_PROGRESS = "session_progress"
TRANSCRIPTIONS = "transcriptions"
AUDIO_CHUNKS_DEAD = "audio_chunks.dead_letters"
TRANSCRIPTIONS_DEAD = "transcriptions.dead_letters"

MAX_MESSAGE_BYTES = 1024 * 1024  # the largest record of any topic; brokers and clients are set to the same
MAX_AUDIO_BYTES = 256 * 1024  # the largest piece of audio in one chunk: 8 s of 16 kHz mono

_HOUR_MS = 60 * 60 * 1000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True)
class Topic:
    """A topic: its name, number of partitions, and broker settings (all values are strings, as in Kafka).

    If `keyed`, readers rely on the partition of a key, so the number of partitions must never change.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = 1
    keyed: bool = False


def topics(audio_partitions: int = 8, reply_partitions: int = 8, replication_factor: int = 1) -> tuple[Topic, ...]:
    """Return every topic that Whisperline needs.

    `audio_partitions` bounds the number of transcriber processes, `reply_partitions` the number of gateways.
    Neither may be lowered later, and raising `audio_partitions` would move running sessions: see
    `docs/architecture.md`. With a `replication_factor` of three or more, an acknowledged record is on two brokers.
    """
    in_sync = (
        "2" if replication_factor > 2 else "1"
    )  # requiring both of two copies would stop writes while a broker restarts
    size = {"max.message.bytes": str(MAX_MESSAGE_BYTES), "min.insync.replicas": in_sync}
    kept = {**size, "retention.ms": str(_DAY_MS), "message.timestamp.type": "LogAppendTime"}
    dead = {**size, "retention.ms": str(14 * _DAY_MS)}
    # The lag keeps records from being compacted while a former owner could still be writing: see progress.py.
    compacted = {**size, "cleanup.policy": "compact", "min.compaction.lag.ms": str(_HOUR_MS)}
    return (
        Topic(AUDIO_CHUNKS, audio_partitions, kept, replication_factor, keyed=True),
        Topic(SESSION_PROGRESS, audio_partitions, compacted, replication_factor, keyed=True),
        Topic(TRANSCRIPTIONS, reply_partitions, kept, replication_factor),
        Topic(AUDIO_CHUNKS_DEAD, 1, dead, replication_factor),
        Topic(TRANSCRIPTIONS_DEAD, 1, dead, replication_factor),
    )
