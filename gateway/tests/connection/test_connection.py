"""The phases of a connection: which end leads where, on a client and a log in memory."""

import asyncio
import struct
import time

import pytest
from fakes import Scene
from harness import PATIENCE_S, end_at, final, resumed, session_end, until
from whisperline_contracts import AudioKind, StreamOptions
from whisperline_gateway.connection.uplink import UplinkPhase
from whisperline_gateway.errors import ClientDisconnectedError, ClientError, RestartingError, SupersededError
from whisperline_gateway.protocol.messages import (
    Ack,
    Audio,
    ClientMessage,
    CloseStream,
    Finalize,
    KeepAlive,
    Resume,
    SessionResumed,
    SessionStarted,
    Summary,
    UnknownMessage,
)
from whisperline_gateway.protocol.tokens import SignedSession, TokenIssuer
from whisperline_persistence import StoreRefusedError

SECRET = b"the secret of the tests"
WAV_HEADER = b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", 0, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", 0)


def token(position: int = 32_000, secret: bytes = SECRET) -> Resume:
    session = SignedSession(
        session_id="s", client_id="o", sample_rate=16_000, channels=1, options=StreamOptions(interim_results=True)
    )
    return Resume("s", TokenIssuer(session, secret).issue(position, time.time()), finals_from=0)


async def test_a_session_from_its_first_sample_to_its_summary() -> None:
    """Open, stream, finish: audio is acknowledged, finals are sent, and the summary is the last message."""
    scene = Scene(acks=True)
    async with scene.running() as (connection, _):
        await scene.peer.until_sent(SessionStarted)
        scene.peer.say(Audio(bytes(6_401)), KeepAlive(), Finalize(), CloseStream())
        end = await scene.log.until_kind(AudioKind.END)
        assert end.position == 3_200  # the byte of an unfinished sample is dropped
        connection.on_event(final(end, 0))
        connection.on_event(end_at(end, 1))
    assert scene.log.kinds == [AudioKind.START, AudioKind.AUDIO, AudioKind.FINALIZE, AudioKind.END]
    kinds = [type(message).__name__ for message in scene.peer.sent]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("SessionStarted", "Summary", {"Ack", "Final"})
    summary = scene.peer.sent[-1]
    assert isinstance(summary, Summary)
    assert (summary.duration_ms, summary.segment_count) == (200, 1)
    assert scene.end_code() == "closed"
    assert scene.detached == []


async def test_a_connection_without_audio_or_header_closes_normally() -> None:
    """A WAV client that closes at once has started no session."""
    scene = Scene()
    async with scene.running(pcm=None):
        scene.peer.say(CloseStream())
    assert scene.end_code() == "closed"
    assert scene.log.chunks == []
    assert scene.attached == []


async def test_a_header_that_ends_halfway_is_an_error() -> None:
    """A client whose header ends halfway gets an error."""
    scene = Scene()
    async with scene.running(pcm=None):
        scene.peer.say(Audio(WAV_HEADER[:20]), CloseStream())
    assert scene.end_code() == "UNREADABLE_AUDIO"


async def test_a_session_starts_when_the_header_is_complete() -> None:
    """A Finalize that comes before the end of the header has no session, and gets no answer."""
    scene = Scene()
    async with scene.running(pcm=None) as (connection, _):
        scene.peer.say(Finalize(), Audio(WAV_HEADER[:30]), Audio(WAV_HEADER[30:] + bytes(8)), CloseStream())
        end = await scene.log.until_kind(AudioKind.END)
        connection.on_event(end_at(end, 0))
    assert scene.log.kinds == [AudioKind.START, AudioKind.AUDIO, AudioKind.END]
    assert scene.end_code() == "closed"


async def test_a_client_that_leaves_while_the_log_is_slow_is_noticed() -> None:
    """A client that leaves while its session opens is noticed, and the session, which cannot be resumed, is ended."""
    scene = Scene(durable=False)
    async with scene.running():
        await scene.log.until(1)
        scene.peer.disconnect()
    assert not scene.peer.is_closed
    assert scene.detached == [(UplinkPhase.OPENING, 0)]


@pytest.mark.parametrize(
    ("failure", "grace_s"),
    [
        (ClientDisconnectedError(), 30),
        (ClientError("SOME", "It failed.", "Come back.", retriable=True), 30),
        (ClientError("SOME", "It is wrong.", "Correct it."), 0),
    ],
)
async def test_what_becomes_of_a_session_whose_connection_ends(failure: Exception, grace_s: float) -> None:
    """A session waits after a disconnect or a retriable error, and is ended at once after any other error."""
    scene = Scene(acks=True)
    async with scene.running():
        await scene.peer.until_sent(SessionStarted)
        scene.peer.say(failure)
    assert scene.detached == [(UplinkPhase.FLOWING, grace_s)]


async def test_a_session_that_cannot_be_resumed_is_ended_when_its_client_leaves() -> None:
    """A session without Acks is ended when its client leaves, because the client has no resume token."""
    scene = Scene()
    async with scene.running():
        scene.peer.say(Audio(bytes(2)))
        await scene.log.until_kind(AudioKind.AUDIO)
        scene.peer.disconnect()
    assert scene.detached == [(UplinkPhase.FLOWING, 0)]


async def test_a_superseded_connection_leaves_the_session_alone() -> None:
    """A superseded connection writes no END, starts no grace period, and closes its uplink."""
    scene = Scene(acks=True)
    async with scene.running() as (connection, _):
        await scene.peer.until_sent(SessionStarted)
        connection.interrupt(SupersededError())
        connection.interrupt(RestartingError())  # the first one counts
    assert scene.end_code() == "SUPERSEDED"
    assert scene.detached == []


async def test_audio_that_cannot_be_stored_ends_the_connection() -> None:
    """A session whose uplink failed is not kept: its client resumes it from the last Ack."""
    scene = Scene(durable=False)
    async with scene.running():
        await scene.log.until(1)
        scene.log.futures[0].set_exception(RuntimeError("the broker is gone"))
    assert scene.end_code() == "NOT_DURABLE"
    assert scene.detached == []


async def test_a_log_that_takes_too_long_ends_the_connection() -> None:
    """A connection ends with an error if its session does not become durable in time."""
    scene = Scene(durable=False, durable_timeout_s=0.05)
    async with scene.running():
        await scene.log.until(1)
    assert scene.end_code() == "NOT_DURABLE"
    assert scene.detached == [(UplinkPhase.OPENING, 0)]


async def test_a_silent_client_is_closed() -> None:
    """A client that sends nothing when it should is closed."""
    scene = Scene(idle_timeout_s=0.05)
    async with scene.running():
        pass
    assert scene.end_code() == "SILENT_CLIENT"


async def test_a_client_that_waits_for_us_is_not_silent() -> None:
    """The idle timeout begins when the session is durable."""
    scene = Scene(durable=False, idle_timeout_s=0.05)
    async with scene.running() as (_, task):
        await scene.log.until(1)
        await asyncio.wait([task], timeout=0.2)
        assert not task.done()
        scene.log.settle()
    assert scene.end_code() == "SILENT_CLIENT"


async def test_a_client_that_we_do_not_read_is_not_silent() -> None:
    """The idle timeout does not run while the gateway waits for Kafka and does not read the client."""
    scene = Scene(durable=False, idle_timeout_s=0.05, in_flight_bytes=1_024)
    async with scene.running() as (_, task):
        await scene.log.until(1)
        scene.log.settle()
        scene.peer.say(Audio(bytes(2_048)))
        await scene.log.until(2)
        await asyncio.wait([task], timeout=0.2)
        assert not task.done()
        scene.log.settle()
    assert scene.end_code() == "SILENT_CLIENT"


async def test_an_unknown_message_is_answered_and_ends_nothing() -> None:
    """An unknown message is answered with an Error even after CloseStream."""
    scene = Scene()
    async with scene.running() as (connection, _):
        scene.peer.say(UnknownMessage("{}"), CloseStream(), UnknownMessage("[]"), Audio(bytes(2)), Finalize())
        await scene.peer.until_sent(UnknownMessage, count=2)
        connection.on_event(end_at(await scene.log.until_kind(AudioKind.END), 0))
    assert scene.log.kinds == [AudioKind.START, AudioKind.END]
    assert scene.end_code() == "closed"


async def test_a_resumed_connection_goes_on_where_the_transcriber_says() -> None:
    """A resumed connection sends its position and the missed finals, and acknowledges audio from there on."""
    scene = Scene(acks=True)
    async with scene.running(resume=token()) as (connection, _):
        resume = await scene.log.until_kind(AudioKind.RESUME)
        assert resume.position == 32_000
        scene.store.store(final(resume, 0))
        connection.on_event(resumed(resume, 32_500, 1))
        answer = await scene.peer.until_sent(SessionResumed)
        assert isinstance(answer, SessionResumed)
        assert answer.position == 32_500
        scene.peer.say(Audio(bytes(2_000)))
        ack = await scene.peer.until_sent(Ack)
        assert isinstance(ack, Ack)
        assert ack.position == 33_500
        await scene.peer.until_sent(type(final(resume, 0)))
        scene.peer.disconnect()


async def test_nothing_is_acknowledged_before_the_answer_to_resume() -> None:
    """Audio is not acknowledged before RESUME is answered, because the session may turn out to have ended."""
    scene = Scene(acks=True, resume_timeout_s=0.01)
    async with scene.running(resume=token()) as (connection, _):
        await scene.peer.until_sent(SessionResumed)
        scene.peer.say(Audio(bytes(2_000)))
        audio = await scene.log.until_kind(AudioKind.AUDIO)
        await until(scene.log.futures[-1].done)
        assert not [message for message in scene.peer.sent if isinstance(message, Ack)]
        connection.on_event(resumed(audio, 32_000, 0))
        await scene.peer.until_sent(Ack)
        scene.peer.disconnect()


async def test_resume_is_written_again_until_it_is_answered() -> None:
    """RESUME is repeated, because a transcriber may have died after it noted RESUME and before it answered."""
    scene = Scene(acks=True, resume_timeout_s=0.01, heartbeat_s=0.02)
    async with scene.running(resume=token()) as (connection, _):
        await until(lambda: scene.log.kinds.count(AudioKind.RESUME) >= 3)
        connection.on_event(resumed(scene.log.chunks[0], 32_000, 0))
        scene.peer.disconnect()


async def test_a_session_that_nobody_knows_is_refused() -> None:
    """A session that the transcriber has forgotten cannot be resumed."""
    scene = Scene(acks=True)
    async with scene.running(resume=token()) as (connection, _):
        resume = await scene.log.until_kind(AudioKind.RESUME)
        connection.on_event(session_end(resume, 0, 0, "unknown"))
    assert scene.end_code() == "SESSION_UNKNOWN"


async def test_a_token_of_another_deployment_makes_no_connection() -> None:
    """An unusable token is refused before any record is written."""
    scene = Scene()
    with pytest.raises(ClientError) as caught:
        scene.connect(resume=token(secret=b"the secret of others"))
    assert caught.value.code == "BAD_RESUME_TOKEN"


async def test_a_gateway_that_stops_sends_a_client_with_a_token_elsewhere() -> None:
    """A stopping gateway first sends the Acks that Kafka is about to allow, and does not end the session."""
    scene = Scene(acks=True, durable=False)
    async with scene.running() as (connection, _):
        await scene.log.until(1)
        scene.log.settle()
        await scene.peer.until_sent(SessionStarted)
        scene.peer.say(Audio(bytes(2_000)))
        await scene.log.until(2)
        draining = asyncio.create_task(connection.drain())
        await asyncio.sleep(0)
        scene.log.settle()
        await draining
    assert scene.end_code() == "RESTARTING"
    assert [message.position for message in scene.peer.sent if isinstance(message, Ack)] == [1_000]
    assert scene.detached == []
    assert AudioKind.END not in scene.log.kinds


async def test_a_gateway_that_stops_ends_a_session_that_cannot_be_resumed() -> None:
    """Its client gets the last finals, for as long as `drain_timeout_s` allows, and is told to connect again."""
    scene = Scene(drain_timeout_s=PATIENCE_S)
    async with scene.running() as (connection, _):
        scene.peer.say(Audio(bytes(2_000)))
        await scene.log.until_kind(AudioKind.AUDIO)
        draining = asyncio.create_task(connection.drain())
        end = await scene.log.until_kind(AudioKind.END)
        connection.on_event(final(end, 0))
        connection.on_event(end_at(end, 1))
        await draining
    assert scene.end_code() == "RESTARTING"
    assert [type(message).__name__ for message in scene.peer.sent] == ["Final", "RestartingError"]


async def test_a_gateway_that_stops_waits_no_longer_than_it_may() -> None:
    """A session that does not finish in time is left to the transcriber."""
    scene = Scene(drain_timeout_s=0.05)
    async with scene.running() as (connection, _):
        await scene.log.until(1)
        await connection.drain()
    assert scene.end_code() == "RESTARTING"
    assert AudioKind.END in scene.log.kinds


async def test_finals_that_do_not_come_are_an_error() -> None:
    """A client whose finals are late gets a retriable error, and may resume its session."""
    scene = Scene(finals_timeout_s=0.05)
    async with scene.running():
        scene.peer.say(CloseStream())
    assert scene.end_code() == "FINALS_LATE"


async def test_audio_for_a_session_that_has_ended_is_an_error() -> None:
    """The transcriber has ended it; what still comes is the client's to send elsewhere."""
    scene = Scene(acks=True)
    async with scene.running() as (connection, _):
        start = await scene.log.until_kind(AudioKind.START)
        await scene.peer.until_sent(SessionStarted)
        connection.on_event(session_end(start, 0, 0, "idle"))
        scene.peer.say(Audio(bytes(2_000)))
    assert scene.end_code() == "SESSION_ENDED"


@pytest.mark.parametrize(
    "says", [(), (Audio(bytes(2_000)),), (CloseStream(),), (Audio(bytes(2_000)), CloseStream())], ids=len
)
async def test_options_that_the_model_cannot_honour_are_an_error(says: tuple[ClientMessage, ...]) -> None:
    """The transcriber refuses the session, and whatever the client does meanwhile, it is told which option is wrong."""
    scene = Scene(acks=True)
    async with scene.running() as (connection, _):
        start = await scene.log.until_kind(AudioKind.START)
        await scene.peer.until_sent(SessionStarted)
        scene.peer.say(*says)
        if CloseStream() in says:
            await scene.log.until_kind(AudioKind.END)
            for _ in range(10):  # the connection comes to wait for the session's end
                await asyncio.sleep(0)
        connection.on_event(session_end(start, 0, 0, "refused"))
        scene.peer.say(Audio(bytes(2_000)))
    failure = scene.peer.closed_with
    assert failure is not None
    assert (failure.code, failure.message, failure.retriable) == (
        "BAD_PARAMETER", "language: this model has no de, only en.", False,
    )  # fmt: skip
    assert scene.detached == []


async def test_a_client_that_does_not_read_is_too_slow() -> None:
    """Finals that the client does not read fill the outbox, and end the connection."""
    scene = Scene(acks=True)
    async with scene.running() as (connection, _):
        await scene.peer.until_sent(SessionStarted)
        for index in range(300):  # in one go: the writer has no turn
            connection.on_event(final(scene.log.chunks[0], index))
    assert scene.end_code() == "SLOW_CLIENT"


async def test_a_defect_is_told_as_one() -> None:
    """A defect of the gateway is reported as INTERNAL, and the log has the details."""
    scene = Scene()
    scene.store.error = StoreRefusedError("no such table")
    async with scene.running() as (connection, _):
        start = await scene.log.until_kind(AudioKind.START)
        connection.on_event(final(start, 5))
    assert scene.end_code() == "INTERNAL"


async def test_a_cancelled_connection_leaves_no_task() -> None:
    """A connection that is cancelled leaves no task running."""
    scene = Scene()
    before = asyncio.all_tasks()
    task = asyncio.create_task(scene.connect().run())
    await scene.log.until(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == before
