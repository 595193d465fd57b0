"""A gateway for tests on real sockets, which keeps sessions as the log does, and helpers that stream to it.

Its "transcript" of a segment is a digest of the segment's audio: lost, doubled or moved audio changes the text.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from whisperline_client import Client, Event, Final

SEGMENT_SAMPLES = 800  # 50 ms at 16 kHz
SEGMENT_BYTES = 2 * SEGMENT_SAMPLES
AUDIO = random.Random(1).randbytes(20 * SEGMENT_BYTES + 90)


def segment_texts(audio: bytes) -> list[str]:
    """Return the finals' texts of a session with this audio."""
    return [_digest(audio[at : at + SEGMENT_BYTES]) for at in range(0, len(audio) // 2 * 2, SEGMENT_BYTES)]


def _digest(audio: bytes) -> str:
    return hashlib.sha256(audio).hexdigest()[:12]


@dataclass
class LoggedSession:
    audio: bytearray = field(default_factory=bytearray)
    closed: bool = False

    @property
    def position(self) -> int:
        return len(self.audio) // 2

    def finals(self) -> list[str]:
        whole = len(self.audio) // SEGMENT_BYTES * SEGMENT_BYTES
        return segment_texts(bytes(self.audio if self.closed else self.audio[:whole]))


class Faults:
    """The faults of a gateway. A test sets those that it needs."""

    def __init__(self) -> None:
        self.drop_at: list[int] = []  # positions at which the session's connection is dropped, ascending
        self.refuse: tuple[str, int] | None = None  # error code, close code
        self.drop_at_close = 0  # how many CloseStream are answered by dropping the connection
        self.silent_at_close = 0  # how many CloseStream are not answered
        self.pauses_at_close: list[float] = []  # seconds before each of the messages that come before the last one
        self.acknowledge = asyncio.Event()  # while cleared, the gateway takes audio and sends no Ack
        self.acknowledge.set()
        self.forget_bytes = 0  # how much of the acknowledged audio the log has lost


class LoopbackGateway:
    """One gateway of several that share `log`."""

    def __init__(self, log: dict[str, LoggedSession], faults: Faults) -> None:
        self.log = log
        self.faults = faults
        self.controls: list[str] = []
        self.queries: list[dict[str, str]] = []

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        self.queries.append(query)
        if self.faults.refuse is not None:
            code, close_code = self.faults.refuse
            await socket.send(
                json.dumps({"type": "Error", "code": code, "message": "No.", "action": "Go.", "sequence_id": 0})
            )
            await socket.close(close_code, code)
            return
        with suppress(ConnectionClosed):
            await _Conversation(self, socket, query).run()


class _Conversation:
    def __init__(self, gateway: LoopbackGateway, socket: ServerConnection, query: dict[str, str]) -> None:
        resumed = "resume_token" in query
        self.gateway = gateway
        self.socket = socket
        self.session_id = query["session_id"] if resumed else f"session-{len(gateway.log)}"
        self.session = gateway.log.setdefault(self.session_id, LoggedSession())
        self.resumed = resumed
        self.next_final = int(query.get("finals_from", "0"))
        self.sequence_id = 0

    async def run(self) -> None:
        del self.session.audio[max(0, len(self.session.audio) - self.gateway.faults.forget_bytes) :]
        await self.send("Resumed" if self.resumed else "SessionStarted", position=self.session.position, **self.ids())
        self.next_final = max(0, self.next_final - 1)  # repeats one final, as at-least-once delivery may
        await self.send_finals()
        async for message in self.socket:
            if isinstance(message, bytes):
                if await self.take_audio(message):
                    return
            elif await self.take_control(json.loads(message)["type"]):
                return

    def ids(self) -> dict[str, str]:
        token = f"token-{self.session.position}"
        return {"session_id": self.session_id, "connection_id": "c", "resume_token": token}

    async def take_audio(self, data: bytes) -> bool:
        """Store audio; return True if a fault dropped the connection meanwhile."""
        drop_at = self.gateway.faults.drop_at
        if drop_at and self.session.position + len(data) // 2 >= drop_at[0]:
            self.session.audio += data[: 2 * (drop_at.pop(0) - self.session.position)]
            self.socket.transport.abort()
            return True
        self.session.audio += data
        if self.gateway.faults.acknowledge.is_set():
            await self.send("Ack", position=self.session.position, **self.ids())
        await self.send_finals()
        return False

    async def take_control(self, kind: str) -> bool:
        """Answer a control message; return True if that ends the session or the connection."""
        self.gateway.controls.append(kind)
        if kind == "Finalize":
            await self.send_results(None, "")
        if kind != "CloseStream":
            return False
        if self.gateway.faults.drop_at_close:
            self.gateway.faults.drop_at_close -= 1
            self.socket.transport.abort()
            return True
        if self.gateway.faults.silent_at_close:
            self.gateway.faults.silent_at_close -= 1
            return False
        for pause_s in self.gateway.faults.pauses_at_close:
            await asyncio.sleep(pause_s)
            await self.send("Ack", position=self.session.position, **self.ids())
        self.session.closed = True
        await self.send_finals()
        await self.send(
            "Metadata",
            session_id=self.session_id,
            duration=self.session.position / 16_000,
            segment_count=len(self.session.finals()),
        )
        await self.socket.close(1000)
        return True

    async def send_finals(self) -> None:
        finals = self.session.finals()
        for index in range(self.next_final, len(finals)):
            await self.send_results(index, finals[index])
        self.next_final = max(self.next_final, len(finals))

    async def send_results(self, index: int | None, text: str) -> None:
        best = {"transcript": text, "confidence": 1.0, "words": []}
        start = SEGMENT_SAMPLES / 16_000 * (index or 0)
        flags = {"is_final": True, "speech_final": True, "from_finalize": index is None}
        times = {"start": start, "duration": SEGMENT_SAMPLES / 16_000}
        await self.send("Results", segment_index=index, channel={"alternatives": [best]}, **times, **flags)

    async def send(self, kind: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": kind, "sequence_id": self.sequence_id, **fields}))
        self.sequence_id += 1


@asynccontextmanager
async def serving(gateway: LoopbackGateway, port: int = 0) -> AsyncIterator[str]:
    """Serve the gateway; yield its URL."""
    async with serve(gateway.handle, "127.0.0.1", port, ping_interval=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{port_of(server)}"


def port_of(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


async def chunks(audio: bytes = AUDIO, size: int = 500) -> AsyncIterator[bytes]:
    for at in range(0, len(audio), size):
        yield audio[at : at + size]
        await asyncio.sleep(0)


async def events_of(client: Client, audio: AsyncIterator[bytes]) -> list[Event]:
    async with asyncio.timeout(30), client.stream(audio) as stream:
        return [event async for event in stream]


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]
