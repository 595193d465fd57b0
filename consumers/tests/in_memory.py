"""A transcriber without Kafka and Triton: its log is in memory, and its model takes loud frames for speech."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TypeVar, cast

import numpy as np
from aiokafka import ConsumerRecord
from whisperline_contracts import AudioChunk, AudioKind, Event, Progress, StreamOptions
from whisperline_transcriber.decoding.admission import Admission
from whisperline_transcriber.decoding.triton import Request
from whisperline_transcriber.log.progress import ProgressLog
from whisperline_transcriber.log.publisher import Publisher
from whisperline_transcriber.log.session_task import Services
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.audio import Samples
from whisperline_transcriber.stream.batcher import VadBatcher
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.vad import VoiceState

Kind = TypeVar("Kind")

LIMIT_S = 10.0
SECOND = 16_000


def loud(seconds: float) -> bytes:
    """Return samples that `hear` takes for speech."""
    return np.tile(np.array([4_000, -4_000], np.int16), int(seconds * SECOND) // 2).tobytes()


def silent(seconds: float) -> bytes:
    """Return silence."""
    return bytes(2 * int(seconds * SECOND))


def hear(frames: Sequence[Samples], states: Sequence[VoiceState]) -> list[tuple[float, VoiceState]]:
    """Take every loud frame for speech."""
    loudness = [np.abs(frame.astype(np.int32)).mean() for frame in frames]
    return [(0.9 if each > 500 else 0.05, state) for each, state in zip(loudness, states, strict=True)]


def record_of(chunk: AudioChunk, offset: int, timestamp_ms: int = 0) -> ConsumerRecord:
    """Return the record that holds `chunk` in partition 0."""
    place = {"topic": "audio_chunks", "partition": 0, "offset": offset, "timestamp": timestamp_ms}
    content = {"key": chunk.session_id.encode(), "value": chunk.data, "headers": chunk.headers()}
    return cast("ConsumerRecord", SimpleNamespace(**place, **content))


class Log:
    """The progress log and the publisher. `happened` lists the decisions and the sent events, in order."""

    def __init__(self) -> None:
        self.happened: list[Progress | Event] = []
        self.ends: list[AudioChunk] = []
        self.tombstones: list[str] = []
        self.counted: dict[str, Progress] = {}
        self.others: dict[int, Progress] = {}  # decisions that another process makes first, by revision
        self.assigned: list[int] = []
        self.assign_error: Exception | None = None
        self._grew = asyncio.Condition()

    def sessions(self, _: int) -> dict[str, Progress]:
        return self.counted

    async def assign(self, partitions: Iterable[int]) -> None:
        if self.assign_error is not None:
            raise self.assign_error
        self.assigned = list(partitions)

    async def close(self) -> None:
        self.assigned = []

    async def propose(self, _: int, progress: Progress) -> Progress:
        counted = self.others.get(progress.revision, progress)
        self.counted[progress.session_id] = counted
        await self._add(counted)
        return counted

    async def write_tombstone(self, _: int, session_id: str) -> None:
        self.tombstones.append(session_id)

    async def send(self, event: Event, _: int) -> None:
        await self._add(event)

    async def send_best_effort(self, event: Event, _: int) -> bool:
        await self._add(event)
        return True

    async def append_audio(self, chunk: AudioChunk, _: int) -> None:
        self.ends.append(chunk)

    async def has_reply_partition(self, partition: int) -> bool:
        return partition < 8

    def all(self, kind: type[Kind]) -> list[Kind]:
        """Return the entries of `happened` of one kind, in order."""
        return [each for each in self.happened if isinstance(each, kind)]

    async def wait_for(self, kind: type, count: int = 1) -> None:
        """Wait until `happened` has `count` entries of a kind."""
        async with asyncio.timeout(LIMIT_S), self._grew:
            await self._grew.wait_for(lambda: sum(isinstance(each, kind) for each in self.happened) >= count)

    async def _add(self, what: Progress | Event) -> None:
        async with self._grew:
            self.happened.append(what)
            self._grew.notify_all()


class Decoding:
    """Admission to a Triton whose transcripts name their lane, and which answers while `finals`, `partials` are set."""

    def __init__(self) -> None:
        self.finals = asyncio.Event()
        self.partials = asyncio.Event()
        self.finals.set()
        self.partials.set()
        self.asked: list[int] = []  # samples of each final and speculation
        self.priorities: list[str] = []  # of each of them
        self.said = "so it goes"
        self.partial_every = SECOND // 2  # samples
        self.admits_speculation = True
        self.speculations_fail = False
        self.refuses = ""

    def admits_partial(self, _: str, new_samples: int) -> bool:
        return new_samples >= self.partial_every

    async def refusal(self, _: str, __: StreamOptions) -> str:
        return self.refuses

    async def decode_final(self, audio: Samples, _: Request, priority: str) -> Transcript:
        self.asked.append(len(audio))
        self.priorities.append(priority)
        await self.finals.wait()
        return Transcript(text=self.said, language="en", words=[], avg_logprob=0, model="whisper", version="1")

    async def speculate(self, audio: Samples, request: Request) -> Transcript | None:
        return None if self.speculations_fail else await self.decode_final(audio, request, "live")

    async def decode_partial(self, _: Samples, __: Request) -> Transcript | None:
        await self.partials.wait()
        return Transcript(text=self.said, language="en", words=[], avg_logprob=0, model="whisper", version="1")


class World:
    """The services of a process, on stand-ins that the tests inspect."""

    def __init__(self, settings: Settings) -> None:
        self.log = Log()
        self.decoding = Decoding()
        self.vad = VadBatcher(hear)
        self.services = Services(
            settings=settings,
            publisher=cast("Publisher", self.log),
            progress=cast("ProgressLog", self.log),
            admission=cast("Admission", self.decoding),
            vad=self.vad,
            owner="me",
        )


class Writer:
    """Writes the records of one session: each has the next offset, and its audio follows the audio before it."""

    def __init__(self, chunk: Callable[..., AudioChunk], session_id: str = "s") -> None:
        self.session_id = session_id
        self.offset = 0
        self.position = 0
        self._chunk = chunk

    def next(self, kind: AudioKind, data: bytes = b"", **more: object) -> tuple[AudioChunk, ConsumerRecord]:
        """Return the next record."""
        chunk = self._chunk(kind, self.position, data, session_id=self.session_id, **more)
        record = record_of(chunk, self.offset)
        self.offset += 1
        self.position += chunk.samples
        return chunk, record
