"""A gateway's own life: start, shutdown, an outage of Kafka, events that cannot be read."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError
from harness import PATIENCE_S, Listener, RunningGateway, Scribe, StartGateway, end_at, final, until
from whisperline_contracts import AudioChunk, AudioKind
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, TRANSCRIPTIONS_DEAD
from whisperline_gateway import metrics
from whisperline_gateway.kafka import AudioLog
from whisperline_local import Stack
from whisperline_runtime.broker import Broker
from whisperline_runtime.process import StartupError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]


FRAME_BYTES = 64_000


def client_of(gateway: RunningGateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False)


async def test_health_metrics_and_the_page_are_served(start_gateway: StartGateway) -> None:
    """A gateway that is ready says so; every answer forbids foreign content."""
    gateway = await start_gateway()
    async with client_of(gateway) as http:
        for path in ("/health/live", "/health/ready"):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")
        assert "whisperline_gateway_connections" in (await http.get("/metrics")).text
        openmetrics = await http.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert openmetrics.text.endswith("# EOF\n")
        page = await http.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_an_ordinal_without_a_partition_cannot_start(start_gateway: StartGateway) -> None:
    """An ordinal without a partition fails at start, with a message that names the setting."""
    with pytest.raises(StartupError, match="WHISPERLINE_GATEWAY_ORDINAL is 99"):
        await start_gateway(ordinal=99)


async def test_a_shutdown_asks_every_client_to_come_back(start_gateway: StartGateway, scribe: Scribe) -> None:
    """One that can resume is told at once; of one that cannot, the session is ended and its finals are sent first."""
    one, two = await start_gateway(drain_timeout_s=10), await start_gateway()
    resumable, final_only = await one.listen(acks="true"), await one.listen()
    await resumable.send(bytes(6_400))
    await final_only.send(bytes(6_400))
    for listener in (resumable, final_only):
        await scribe.stored(listener.session_id, 3_200)
    stopping = asyncio.create_task(one.stop())
    assert await resumable.closed() == (1012, "RESTARTING")
    end = await scribe.until(final_only.session_id, AudioKind.END)
    await scribe.publish(end, final(end, 0), end_at(end, 1))
    assert await final_only.closed() == (1012, "RESTARTING")
    assert final_only.all("Results")[0]["segment_index"] == 0
    await stopping
    session_id = resumable.session_id
    assert AudioKind.END not in {record.kind for record in scribe.records(session_id)}
    ack = resumable.all("Ack")[-1]
    assert ack["position"] == 3_200
    again = await two.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    await again.next("Resumed")
    await again.vanish()


async def test_an_event_that_cannot_be_read_goes_to_the_dead_letters(
    start_gateway: StartGateway, scribe: Scribe, stack: Stack
) -> None:
    """It keeps its bytes, if there is room for them, and gets its reason and origin; the next event is routed."""
    gateway = await start_gateway()
    listener = await gateway.listen()
    await listener.send(bytes(3_200))
    start = await scribe.until(listener.session_id, AudioKind.AUDIO)  # from then on events are sent
    await scribe.write(start.reply_partition, b'{"schema": "2.0"}', start.session_id)
    await scribe.write(start.reply_partition, bytes(MAX_MESSAGE_BYTES - 140))
    await scribe.publish(start, final(start, 0))
    await listener.next("Results", segment_index=0)
    await listener.vanish()
    consumer = AIOKafkaConsumer(
        TRANSCRIPTIONS_DEAD, bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest"
    )
    async with consumer, asyncio.timeout(20):
        while (letter := await consumer.getone()).key != start.session_id.encode():
            pass  # other tests leave letters, too
        while (too_big := await consumer.getone()).value is not None:
            pass
    headers = dict(letter.headers)
    assert letter.value == b'{"schema": "2.0"}'
    assert b"schema version 2.0" in headers["dead_letter.reason"]
    assert headers["dead_letter.consumer"] == b"gateway-0"
    assert too_big.value is None
    assert int(dict(too_big.headers)["dead_letter.offset"]) > int(headers["dead_letter.offset"])


async def test_a_session_survives_a_restart_of_kafka(start_gateway: StartGateway, scribe: Scribe, stack: Stack) -> None:
    """While Kafka is away little of the audio is taken, and none acknowledged; then all of it is, once, in order."""
    gateway = await start_gateway(idle_timeout_s=60, in_flight_bytes=256 * 1024)
    listener = await gateway.listen(acks="true")
    await listener.send(bytes(3_200))
    await listener.acked(1_600)
    await stack.stop("kafka")
    before = received_bytes()
    sending = asyncio.create_task(send_frames(listener, 200))
    await until(lambda: received_bytes() - before >= 256 * 1024)
    async with client_of(gateway) as http:
        for _ in range(20):  # the gateway has its turns, and would read on if it did not wait
            await http.get("/health/live")
    assert received_bytes() - before <= 256 * 1024 + FRAME_BYTES  # the rest waits in the socket, and with the client
    assert not sending.done()
    assert listener.all("Ack")[-1]["position"] == 1_600
    await stack.start("kafka")
    await sending
    await listener.acked(1_600 + 200 * FRAME_BYTES // 2)
    await listener.say("CloseStream")
    session_id = listener.session_id
    end = await scribe.until(session_id, AudioKind.END)
    audio = [record for record in scribe.records(session_id) if record.kind is AudioKind.AUDIO and record.data]
    assert [record.position for record in audio] == [sum(r.samples for r in audio[:n]) for n in range(len(audio))]
    await scribe.publish(end, end_at(end, 0))
    assert await listener.closed() == (1000, None)


def received_bytes() -> float:
    (metric,) = metrics.RECEIVED_BYTES.collect()
    return float(metric.samples[0].value)


async def send_frames(listener: Listener, count: int) -> None:
    for _ in range(count):
        await listener.send(os.urandom(FRAME_BYTES))


async def run_program(**environment: str) -> Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERLINE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "whisperline_gateway", env={**kept, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def output_of(process: Process) -> str:
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return output.decode()


async def test_wrong_settings_are_named() -> None:
    """Every setting that is missing or wrong has its line, and nothing is started."""
    process = await run_program(WHISPERLINE_GATEWAY_PORT="http", WHISPERLINE_GATEWAY_TOKEN_SECRET="short")  # noqa: S106
    lines = (await output_of(process)).splitlines()
    assert process.returncode == 2
    assert sorted(line.split(":")[0] for line in lines) == [
        "WHISPERLINE_GATEWAY_DATABASE_URL", "WHISPERLINE_GATEWAY_PORT", "WHISPERLINE_GATEWAY_TOKEN_SECRET",
    ]  # fmt: skip


def environment_of(stack: Stack, port: int) -> dict[str, str]:
    return {
        "WHISPERLINE_GATEWAY_PORT": str(port),
        "WHISPERLINE_GATEWAY_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "WHISPERLINE_GATEWAY_DATABASE_URL": stack.database_url,
        "WHISPERLINE_GATEWAY_TOKEN_SECRET": "the secret of the tests",
    }


async def listen_at(port: int, query: str = "") -> Listener:
    """Connect to a gateway that is about to listen."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await Listener.connect(
                    f"ws://127.0.0.1:{port}/v1/listen?encoding=linear16&sample_rate=8000{query}"
                )
            except OSError:
                await asyncio.sleep(0.05)


async def test_sigterm_ends_the_program_and_its_log_holds_no_token(stack: Stack, unused_tcp_port: int) -> None:
    """The process ends by itself, as it should; resume tokens and passwords are not in the log."""
    process = await run_program(**environment_of(stack, unused_tcp_port))
    listener = await listen_at(unused_tcp_port, "&acks=true")
    token = (await listener.next("SessionStarted"))["resume_token"]
    process.send_signal(signal.SIGTERM)
    assert await listener.closed() == (1012, "RESTARTING")
    output = await output_of(process)
    assert process.returncode == 0
    assert "RESTARTING" in output
    assert token not in output
    assert stack.database_url not in output


async def test_what_waits_for_the_log_is_written_before_the_program_ends(
    stack: Stack, unused_tcp_port: int, scribe: Scribe
) -> None:
    """A client that cannot resume is gone, and its session's end still being gathered, when SIGTERM comes."""
    process = await run_program(**environment_of(stack, unused_tcp_port), WHISPERLINE_GATEWAY_FLUSH_MS="1000")
    listener = await listen_at(unused_tcp_port)
    session_id = listener.session_id
    await listener.send(bytes(3_200))
    await scribe.stored(session_id, 1_600)
    await listener.vanish()
    process.send_signal(signal.SIGTERM)
    await output_of(process)
    assert process.returncode == 0
    assert (await scribe.until(session_id, AudioKind.END)).position == 1_600


async def test_what_a_replaced_producer_cannot_write_fails(stack: Stack) -> None:
    """A record that the old producer still holds after some seconds is given up, so that nothing waits for it."""
    chunk = AudioChunk(
        session_id="given up", connection_id="c", client_id="o", kind=AudioKind.START, sequence=0, position=0,
        sample_rate=16_000, reply_partition=0,
    )  # fmt: skip
    broker = Broker(bootstrap=stack.kafka_bootstrap)
    async with asyncio.timeout(60), AudioLog.open(broker, linger_ms=600_000) as audio_log:
        stored = await audio_log.append(chunk)
        audio_log.replace_producer()
        with pytest.raises(KafkaTimeoutError):
            await stored
        assert audio_log.generation == 1


async def test_a_release_that_reads_no_event_stops_by_itself(
    start_gateway: StartGateway, scribe: Scribe, stack: Stack, unused_tcp_port: int
) -> None:
    """Too many events in a row that cannot be read stop the process before it drains the log."""
    program = await run_program(
        **environment_of(stack, unused_tcp_port),
        WHISPERLINE_GATEWAY_ORDINAL="2",
        WHISPERLINE_GATEWAY_DEAD_LETTERS_IN_A_ROW="3",
    )
    listener = await listen_at(unused_tcp_port)
    for _ in range(3):
        await scribe.write(2, b"not JSON")
    assert await listener.closed() == (1012, "RESTARTING")
    output = await output_of(program)
    assert program.returncode == 1
    assert "3 records in a row cannot be used" in output


async def test_a_database_url_that_is_none_is_named_at_start() -> None:
    """An invalid database URL fails at start, and its value, which may hold a password, is not shown."""
    program = await run_program(
        WHISPERLINE_GATEWAY_DATABASE_URL="secret, and not a URL",
        WHISPERLINE_GATEWAY_TOKEN_SECRET="the secret of the tests",  # noqa: S106
    )
    output = await output_of(program)
    assert program.returncode == 2
    assert output.startswith("WHISPERLINE_GATEWAY_DATABASE_URL: ")
    assert "secret, and not a URL" not in output
