"""Streams through real sockets, to a gateway of this file's that keeps sessions as the log does.

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

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from whisperline_client import (
    Ack,
    AudioError,
    AudioGone,
    Client,
    Closed,
    Disconnected,
    Event,
    Final,
    Finalized,
    GatewayRefused,
    GatewayUnreachable,
    Resumed,
    RetryPolicy,
    Started,
)

SEGMENT_SAMPLES = 800  # 50 ms at 16 kHz
SEGMENT_BYTES = 2 * SEGMENT_SAMPLES


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
    """What goes wrong, and when. A test sets what it needs."""

    def __init__(self) -> None:
        self.drop_at: list[int] = []  # positions at which the session's connection is dropped, ascending
        self.refuse: tuple[str, int] | None = None  # error code, close code
        self.drop_at_close = 0  # how many CloseStream are answered by a dropped connection
        self.acknowledge = asyncio.Event()  # cleared: audio is taken and no Ack sent
        self.acknowledge.set()
        self.forget_bytes = 0  # the log lost so much of what it had acknowledged


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
        self.next_final = max(0, self.next_final - 1)  # one final again, as at-least-once delivery may
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
        """Store audio; return whether the connection was dropped on the way."""
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
        """Answer a control message; return whether the session is over."""
        self.gateway.controls.append(kind)
        if kind == "Finalize":
            await self.send_results(None, "")
        if kind != "CloseStream":
            return False
        if self.gateway.faults.drop_at_close:
            self.gateway.faults.drop_at_close -= 1
            self.socket.transport.abort()
            return True
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


QUICK = RetryPolicy(first_delay_s=0.01, max_delay_s=0.02, deadline_s=5.0)
AUDIO = random.Random(1).randbytes(20 * SEGMENT_BYTES + 90)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many frames of little audio, so that there is much to lose."""
    monkeypatch.setattr("whisperline_client.client.MAX_FRAME_BYTES", 1000)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def gateway(faults: Faults) -> LoopbackGateway:
    return LoopbackGateway({}, faults)


async def chunks(audio: bytes = AUDIO, size: int = 500) -> AsyncIterator[bytes]:
    for at in range(0, len(audio), size):
        yield audio[at : at + size]
        await asyncio.sleep(0)


async def events_of(client: Client, audio: AsyncIterator[bytes]) -> list[Event]:
    async with asyncio.timeout(30), client.stream(audio) as stream:
        return [event async for event in stream]


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


async def test_an_undisturbed_stream(gateway: LoopbackGateway) -> None:
    """Every final comes once, in order, and the last event closes the session."""
    async with serving(gateway) as url:
        events = await events_of(Client([url]), chunks())
    assert isinstance(events[0], Started)
    assert texts(events) == segment_texts(AUDIO)
    assert events[-1] == Closed("session-0", round(len(AUDIO) / 32), segment_count=21, connection_count=1)


@pytest.mark.parametrize("seed", range(8))
async def test_lost_connections(seed: int, faults: Faults) -> None:
    """Whenever connections to either of two gateways are lost, the finals are those of an undisturbed stream."""
    chance = random.Random(seed)
    faults.drop_at = sorted(chance.randrange(len(AUDIO) // 2) for _ in range(6))
    log: dict[str, LoggedSession] = {}
    async with serving(LoopbackGateway(log, faults)) as one, serving(LoopbackGateway(log, faults)) as two:
        events = await events_of(Client([one, two], retry=QUICK), chunks(size=chance.randrange(1, 4000)))
    assert texts(events) == segment_texts(AUDIO)
    assert sum(isinstance(event, Disconnected) for event in events) == 6
    assert isinstance(events[-1], Closed)


async def test_resuming_asks_for_the_finals_that_are_missing(gateway: LoopbackGateway, faults: Faults) -> None:
    """A new connection names the session, the latest token and the first final that did not come."""
    faults.drop_at = [2000]
    async with serving(gateway) as url:
        events = await events_of(Client([url], retry=QUICK), chunks(size=SEGMENT_BYTES))
    resumed = next(event for event in events if isinstance(event, Resumed))
    assert "resume_token" not in gateway.queries[0]
    assert gateway.queries[1]["session_id"] == "session-0"
    assert gateway.queries[1]["finals_from"] in ("0", "1", "2")
    assert resumed.position == 2000


async def test_a_connection_lost_while_closing(gateway: LoopbackGateway, faults: Faults) -> None:
    """When the connection drops before the last finals, they come on the next one."""
    faults.drop_at_close = 2
    async with serving(gateway) as url:
        events = await events_of(Client([url], retry=QUICK), chunks())
    assert texts(events) == segment_texts(AUDIO)
    assert isinstance(events[-1], Closed)
    assert events[-1].connection_count == 3


async def test_a_gateway_that_comes_late(gateway: LoopbackGateway) -> None:
    """A stream begins once a gateway can be reached, and no audio is lost until then."""
    async with serving(gateway) as url:
        port = int(url.rpartition(":")[2])
    async with Client([url], retry=QUICK).stream(chunks()) as stream, asyncio.timeout(30):
        assert isinstance(await anext(stream), Disconnected)
        async with serving(gateway, port):
            events = [event async for event in stream]
    assert texts(events) == segment_texts(AUDIO)


async def test_no_gateway_at_all(gateway: LoopbackGateway) -> None:
    """After the deadline the stream fails with a retriable error that names the gateway."""
    async with serving(gateway) as url:
        pass
    with pytest.raises(GatewayUnreachable, match=url) as caught:
        await events_of(Client([url], retry=RetryPolicy(0.01, 0.02, start_deadline_s=0.1)), chunks())
    assert caught.value.retriable


@pytest.mark.parametrize(("close_code", "retriable"), [(1008, False), (1012, True)])
async def test_a_refusal(close_code: int, retriable: bool, gateway: LoopbackGateway, faults: Faults) -> None:
    """A refusal that will stay ends the stream with its reason; one that may pass is tried again to the deadline."""
    faults.refuse = ("TOKEN_EXPIRED", close_code)
    async with serving(gateway) as url:
        with pytest.raises(GatewayUnreachable if retriable else GatewayRefused, match="TOKEN_EXPIRED"):
            await events_of(Client([url], retry=RetryPolicy(0.01, 0.02, start_deadline_s=0.1)), chunks())
    assert (len(gateway.queries) > 1) == retriable


async def test_the_buffer_is_bounded(gateway: LoopbackGateway, faults: Faults) -> None:
    """Without acknowledgements the source is read no further than the buffer's limit, and goes on with them."""
    faults.acknowledge.clear()
    taken = bytearray()

    async def counted() -> AsyncIterator[bytes]:
        async for chunk in chunks():
            taken.extend(chunk)
            yield chunk

    async with serving(gateway) as url:
        limit_s = 0.25
        async with Client([url], buffer_s=limit_s).stream(counted()) as stream, asyncio.timeout(30):
            assert [final.segment_index async for final in _until_finals(stream, 5)] == [0, 1, 2, 3, 4]
            assert len(taken) <= limit_s * 32_000 + 2 * 500
            faults.acknowledge.set()


async def _until_finals(stream: AsyncIterator[Event], count: int) -> AsyncIterator[Final]:
    async for event in stream:
        if isinstance(event, Final):
            yield event
            count -= 1
        if not count:
            return


async def test_silence_of_the_source(gateway: LoopbackGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the source yields nothing the gateway is told that the client lives."""
    monkeypatch.setattr("whisperline_client.client.KEEP_ALIVE_S", 0.01)
    arrived = asyncio.Event()
    gateway.controls = _Noting(arrived)

    async def paused() -> AsyncIterator[bytes]:
        yield AUDIO[:SEGMENT_BYTES]
        await arrived.wait()
        yield AUDIO[SEGMENT_BYTES:]

    async with serving(gateway) as url:
        events = await events_of(Client([url]), paused())
    assert texts(events) == segment_texts(AUDIO)
    assert gateway.controls[0] == "KeepAlive"


class _Noting(list[str]):
    def __init__(self, arrived: asyncio.Event) -> None:
        super().__init__()
        self._arrived = arrived

    def append(self, kind: str) -> None:
        super().append(kind)
        self._arrived.set()


async def test_finalize(gateway: LoopbackGateway) -> None:
    """Finalize goes out after the audio handed in before it, and its answer is an event."""
    more = asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield AUDIO[:SEGMENT_BYTES]
        await more.wait()

    async with serving(gateway) as url, Client([url]).stream(halting()) as stream, asyncio.timeout(30):
        async for event in stream:
            if isinstance(event, Final):
                stream.finalize()
            if isinstance(event, Finalized):
                more.set()
    assert gateway.controls == ["Finalize", "CloseStream"]


async def test_a_source_that_fails(gateway: LoopbackGateway) -> None:
    """When the source of audio fails, iteration raises an error with its reason."""

    async def broken() -> AsyncIterator[bytes]:
        yield AUDIO[:100]
        raise OSError("unplugged")

    async with serving(gateway) as url:
        with pytest.raises(AudioError, match="unplugged"):
            await events_of(Client([url]), broken())


async def test_a_gateway_that_forgot_acknowledged_audio(gateway: LoopbackGateway, faults: Faults) -> None:
    """When a gateway asks for audio that it had acknowledged, the stream fails rather than leave a gap."""
    acknowledged = asyncio.Event()
    faults.drop_at, faults.forget_bytes = [8000], 3 * SEGMENT_BYTES

    async def halting() -> AsyncIterator[bytes]:
        yield AUDIO[:15_000]
        await acknowledged.wait()
        yield AUDIO[15_000:]

    async with serving(gateway) as url, Client([url], retry=QUICK).stream(halting()) as stream, asyncio.timeout(30):
        while not isinstance(event := await anext(stream), Ack) or event.position < 7500:
            pass
        acknowledged.set()
        with pytest.raises(AudioGone):
            _ = [event async for event in stream]


async def test_leaving_early(gateway: LoopbackGateway) -> None:
    """Leaving the block ends every task of the stream."""
    before = asyncio.all_tasks()
    async with serving(gateway) as url, Client([url]).stream(chunks()) as stream:
        await anext(stream)
    leftover = {task for task in asyncio.all_tasks() - before if "whisperline" in task.get_name()}
    assert not leftover
