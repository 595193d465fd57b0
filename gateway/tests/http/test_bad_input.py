"""Mistakes of a client have their documented errors and closes, and cost nobody else anything."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from uuid import uuid4

import pytest
from harness import RunningGateway, Scribe, StartGateway, final, session_end, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin
from whisperline_contracts import AudioChunk, AudioKind

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

LYING_HEADER = b"RIFF" + struct.pack("<I4s4sIHHIIHH", 36, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 44_100, 2, 16)
SILENCE_MINUTE = bytes(16_000 * 2 * 60)


async def raw_socket(
    gateway: RunningGateway, receive_buffer_bytes: int | None = None, query: str = ""
) -> socket.socket:
    """A WebSocket handshake on a plain TCP socket, for what no WebSocket library would send."""
    plain = socket.socket()
    if receive_buffer_bytes is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    plain.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(plain, ("127.0.0.1", gateway.port))
    request = (
        f"GET /v1/listen?encoding=linear16&sample_rate=16000{query} HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await loop.sock_sendall(plain, request.encode())
    await loop.sock_recv(plain, 12)
    return plain


async def answer_to(gateway: RunningGateway, frame: bytes) -> bytes:
    """Everything that the gateway answers to a frame, until it closes."""
    plain = await raw_socket(gateway)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(plain, frame)
    answer = b""
    async with asyncio.timeout(20):
        while b"\x88" not in answer and (data := await loop.sock_recv(plain, 4096)):
            answer += data
    plain.close()
    return answer


@pytest.mark.parametrize(
    ("query", "frame", "code"),
    [
        pytest.param({"encoding": None}, os.urandom(4_000), "DATA-0000", id="garbage as WAV"),
        pytest.param({"encoding": None}, LYING_HEADER, "DATA-0000", id="a header that lies"),
        pytest.param({}, "UklGRiQAAABXQVZF", "BAD_MESSAGE", id="text instead of binary"),
        pytest.param({}, "[]", "BAD_MESSAGE", id="JSON that is no message"),
        pytest.param({"sample_rate": 5}, b"", "BAD_PARAMETER", id="a wrong rate"),
        pytest.param({"encoding": "opus"}, b"", "BAD_PARAMETER", id="a wrong encoding"),
        pytest.param({"session_id": str(uuid4()), "resume_token": "y"}, b"", "BAD_RESUME_TOKEN", id="a forged token"),
    ],
)
async def test_what_cannot_be_used_is_refused(
    start_gateway: StartGateway, query: dict[str, object], frame: bytes | str, code: str
) -> None:
    """Garbage, lies, text, wrong values and forged tokens: an Error that says so, and 1008."""
    gateway = await start_gateway()
    listener = await gateway.listen(**query)
    with contextlib.suppress(ConnectionClosed):  # some are refused before they send
        await listener.socket.send(frame)
    assert await listener.closed() == (1008, code)
    error = listener.all("Error")[0]
    assert error["message"]
    assert error["action"]
    assert code in (listener.socket.close_reason or "")


async def test_a_frame_of_100_mb_is_refused(start_gateway: StartGateway) -> None:
    """A client that is still sending a huge frame reads the Error and close code 1009."""
    gateway = await start_gateway()
    listener = await gateway.listen()
    with contextlib.suppress(ConnectionClosed):
        await listener.send(bytes(100 * 1024 * 1024))
    assert await listener.closed() == (1009, "FRAME_TOO_LARGE")


async def test_broken_frames_are_answered(start_gateway: StartGateway) -> None:
    """Text that is not UTF-8 is closed with 1007, a frame that is not masked with 1002; both after an Error."""
    gateway = await start_gateway()
    not_utf8 = await answer_to(gateway, b"\x81\x82\0\0\0\0\xff\xff")
    assert b"NOT_UTF8" in not_utf8
    assert b"\x03\xef" in not_utf8  # 1007
    not_masked = await answer_to(gateway, b"\x82\x02ab")
    assert b"PROTOCOL" in not_masked
    assert b"\x03\xea" in not_masked  # 1002


async def test_an_unknown_message_does_not_end_the_connection(start_gateway: StartGateway) -> None:
    """A client that sends an unknown message gets an Error, and is served."""
    gateway = await start_gateway()
    listener = await gateway.listen(acks="true")
    await listener.say("Configure")
    assert (await listener.next("Error"))["code"] == "UNKNOWN_MESSAGE"
    await listener.send(bytes(3_200))
    await listener.acked(1_600)
    await listener.vanish()


@pytest.mark.parametrize("encoding", ["linear16", None])
async def test_a_client_that_sends_nothing_is_closed(start_gateway: StartGateway, encoding: str | None) -> None:
    """A client that sends neither audio nor KeepAlive is closed with Deepgram's NET-0001."""
    gateway = await start_gateway(idle_timeout_s=0.3)
    listener = await gateway.listen(encoding=encoding)
    assert await listener.closed() == (1011, "NET-0001")


async def test_keep_alive_keeps_a_silent_connection(start_gateway: StartGateway) -> None:
    """A client without audio may stay as long as it sends KeepAlive."""
    gateway = await start_gateway(idle_timeout_s=2)
    listener, silent = await gateway.listen(acks="true"), await gateway.listen(acks="true")
    await listener.next("SessionStarted")

    async def keep_alive() -> None:
        while True:
            await listener.say("KeepAlive")
            await asyncio.sleep(0.1)

    keeping = asyncio.create_task(keep_alive())
    assert await silent.closed() == (1011, "NET-0001")  # which has had as much time
    keeping.cancel()
    await listener.send(bytes(3_200))
    await listener.acked(1_600)
    assert not listener.all("Error")
    await listener.vanish()


async def test_a_minute_of_silence_is_audio_like_any(start_gateway: StartGateway, scribe: Scribe) -> None:
    """Silence is stored and acknowledged, and causes no error."""
    gateway = await start_gateway()
    listener = await gateway.listen(acks="true")
    for start in range(0, len(SILENCE_MINUTE), 32_000):
        await listener.send(SILENCE_MINUTE[start : start + 32_000])
    await listener.acked(16_000 * 60)
    await listener.say("CloseStream")
    end = await scribe.until(listener.session_id, AudioKind.END)
    await scribe.publish(end, session_end(end, 0, 60_000))
    assert await listener.closed() == (1000, None)


async def test_a_quiet_session_shows_the_log_that_it_lives(start_gateway: StartGateway, scribe: Scribe) -> None:
    """The transcriber ends sessions without records, so a connection without audio writes empty ones."""
    gateway = await start_gateway(heartbeat_s=0.1)
    listener = await gateway.listen()
    beat = await scribe.until(listener.session_id, AudioKind.AUDIO, count=3)
    assert (beat.position, beat.data) == (0, b"")
    await listener.vanish()


async def test_a_vanished_client_that_cannot_resume_ends_its_session(
    start_gateway: StartGateway, scribe: Scribe
) -> None:
    """Without acks there is no way back: END is written at once, after all that was received."""
    gateway = await start_gateway()
    listener = await gateway.listen()
    await listener.send(bytes(6_401))
    await listener.vanish()
    assert (await scribe.until(listener.session_id, AudioKind.END)).position == 3_200


async def test_a_vanished_client_that_may_resume_has_its_grace(start_gateway: StartGateway, scribe: Scribe) -> None:
    """With acks END is written when the grace is over, unless the client has come back."""
    patient, hasty = await start_gateway(), await start_gateway(ordinal=1, resume_grace_s=0.1, resume_timeout_s=0.1)
    listener = await patient.listen(acks="true")
    await listener.send(bytes(6_400))
    ack = await listener.acked(3_200)
    session_id = listener.session_id
    await listener.vanish()
    again = await hasty.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    await again.next("Resumed")
    await again.vanish()
    end = await scribe.until(session_id, AudioKind.END)
    assert end.connection_id == (await scribe.until(session_id, AudioKind.RESUME)).connection_id


async def test_a_client_that_never_reads_is_dropped(start_gateway: StartGateway, scribe: Scribe) -> None:
    """The socket of a client that does not read is dropped after a while, with its waiting messages."""
    gateway = await start_gateway(write_timeout_s=0.5)
    plain = await raw_socket(gateway, receive_buffer_bytes=4_096, query="&client_id=never-reads")
    start = await first_audio(plain, scribe, "never-reads")
    text = "words " * 30_000
    async with asyncio.timeout(30):
        for index in range(200):
            await scribe.publish(start, final(start, index, text))
            if not gateway.server.server_state.connections:
                break
    await until(lambda: not gateway.server.server_state.connections)
    await scribe.until(start.session_id, AudioKind.END)
    plain.close()


async def first_audio(plain: socket.socket, scribe: Scribe, client_id: str) -> AudioChunk:
    """Send a sample over a plain socket, and wait for its record: from then on events are sent to the client."""
    await asyncio.get_running_loop().sock_sendall(plain, b"\x82\x82\0\0\0\0ab")
    start = await scribe.first_of_client(client_id)
    return await scribe.until(start.session_id, AudioKind.AUDIO)


async def test_too_many_connections_are_told_to_try_again(start_gateway: StartGateway) -> None:
    """Beyond its limit a gateway refuses, and serves again when there is room; sessions without a client count, too."""
    gateway = await start_gateway(max_connections=1)
    first, second = await gateway.listen(acks="true"), await gateway.listen(acks="true")
    assert await second.closed() == (1013, "OVERLOADED")
    await first.next("SessionStarted")
    await first.vanish()
    await until(lambda: gateway.gateway.registry.connection_count == 0)
    third = await gateway.listen(acks="true")
    await third.next("SessionStarted")
    await third.vanish()
    await until(lambda: gateway.gateway.registry.connection_count == 0)
    fourth = await gateway.listen(acks="true")  # the sessions of the first and the third wait for their clients
    assert await fourth.closed() == (1013, "OVERLOADED")


async def test_a_foreign_page_is_refused(start_gateway: StartGateway) -> None:
    """A page of another origin gets HTTP 403; one of our own, and a named one, is served."""
    gateway = await start_gateway(allowed_origins=("https://app.example",))
    with pytest.raises(InvalidStatus) as caught:
        await connect(gateway.url(), origin=Origin("http://evil.example"), proxy=None)
    assert caught.value.response.status_code == 403
    for origin in (f"http://127.0.0.1:{gateway.port}", "https://app.example"):
        async with connect(gateway.url(acks="true"), origin=Origin(origin), proxy=None) as listener:
            assert json.loads(await listener.recv())["type"] == "SessionStarted"


async def test_bad_clients_delay_nobody(start_gateway: StartGateway, scribe: Scribe) -> None:
    """While others send garbage and huge frames, or do not read, a good client's audio is acknowledged."""
    gateway = await start_gateway(write_timeout_s=1, idle_timeout_s=2)
    good = await gateway.listen(acks="true")
    await good.next("SessionStarted")
    stop = asyncio.Event()
    bad = asyncio.gather(*(misbehave(gateway, stop) for _ in range(4)), never_read(gateway, scribe, stop))
    for position in range(3_200, 3_200 * 26, 3_200):
        async with asyncio.timeout(
            10
        ):  # alone it takes up to 0.24 s: the gathering of audio, the interval between Acks
            await good.send(bytes(6_400))
            await good.acked(position)
    stop.set()
    await bad
    await good.vanish()


async def misbehave(gateway: RunningGateway, stop: asyncio.Event) -> None:
    while not stop.is_set():
        for frame in (os.urandom(1000), "text", bytes(8 * 1024 * 1024)):
            listener = await gateway.listen(encoding=None if frame != "text" else "linear16")
            with contextlib.suppress(ConnectionClosed):  # the gateway may be faster
                await listener.socket.send(frame)
            await listener.closed()


async def never_read(gateway: RunningGateway, scribe: Scribe, stop: asyncio.Event) -> None:
    plain = await raw_socket(gateway, receive_buffer_bytes=4_096, query="&client_id=one-that-does-not-read")
    start = await first_audio(plain, scribe, "one-that-does-not-read")
    for index in range(40):
        await scribe.publish(start, final(start, index, "words " * 20_000))
    await stop.wait()
    plain.close()
