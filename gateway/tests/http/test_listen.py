"""A session over a real socket, through real Kafka: audio in, acks and text out, resumption."""

import asyncio
import io
import wave
from itertools import pairwise

import pytest
from harness import (
    Listener,
    Message,
    RunningGateway,
    Scribe,
    StartGateway,
    end_at,
    final,
    finalized,
    partial,
    resumed,
    session_end,
    speech_started,
    utterance_end,
)
from whisperline_contracts import AudioChunk, AudioKind, Event
from whisperline_persistence import Store

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

AUDIO = bytes(range(256)) * 250  # 64,000 bytes: 2 s


async def send_in_pieces(listener: Listener, audio: bytes, size: int) -> None:
    for start in range(0, len(audio), size):
        await listener.send(audio[start : start + size])


def log_of(records: list[AudioChunk]) -> bytes:
    """The audio of records, which must be contiguous from its first position on."""
    audio = [record for record in records if record.kind is AudioKind.AUDIO]
    for before, after in pairwise(audio):
        assert after.position == before.position + before.samples
    return b"".join(record.data for record in audio)


@pytest.mark.parametrize("size", [1, 333, 3_200, 64_000])
async def test_audio_in_any_pieces_is_stored_whole_and_acknowledged(
    start_gateway: StartGateway, scribe: Scribe, size: int
) -> None:
    """Odd pieces become whole samples; CloseStream brings the finals, then the summary, then a normal close."""
    gateway = await start_gateway()
    audio = AUDIO[:2_001] if size == 1 else AUDIO
    listener = await gateway.listen(acks="true")
    started = await listener.next("SessionStarted")
    assert (started["sequence_id"], started["position"]) == (0, 0)
    await send_in_pieces(listener, audio, size)
    await listener.say("CloseStream")
    session_id = started["session_id"]
    end = await scribe.until(session_id, AudioKind.END)
    assert end.position == len(audio) // 2
    assert log_of(scribe.records(session_id)) == audio[: 2 * end.position]
    await scribe.publish(end, final(end, 0, "one"), final(end, 1, "two"), end_at(end, 2))
    assert await listener.closed() == (1000, None)
    assert listener.all("Ack")[-1]["position"] == end.position
    finals = listener.all("Results")
    assert [final["channel"]["alternatives"][0]["transcript"] for final in finals] == ["one", "two"]
    assert listener.messages[-1]["type"] == "Metadata"
    assert listener.messages[-1]["request_id"] == session_id


async def test_a_wav_file_in_pieces_is_its_samples(start_gateway: StartGateway, scribe: Scribe) -> None:
    """Without an encoding the audio is WAV; its own header says rate and channels."""
    gateway = await start_gateway()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(AUDIO)
    listener = await gateway.listen(encoding=None, sample_rate=None, acks="true")
    await send_in_pieces(listener, buffer.getvalue(), 7_001)
    started = await listener.next("SessionStarted")
    await listener.send(b"")  # as CloseStream
    end = await scribe.until(started["session_id"], AudioKind.END)
    records = scribe.records(started["session_id"])
    assert {(record.sample_rate, record.channels) for record in records} == {(44_100, 2)}
    assert log_of(records) == AUDIO
    await scribe.publish(end, end_at(end, 0))
    assert await listener.closed() == (1000, None)


async def test_what_was_not_asked_for_is_not_sent(start_gateway: StartGateway, scribe: Scribe) -> None:
    """Without acks, vad_events and interim_results a client sees finals alone, as with Deepgram."""
    gateway = await start_gateway()
    listener = await gateway.listen()
    await listener.send(AUDIO)
    start = await scribe.until(listener.session_id, AudioKind.AUDIO)  # from then on events are sent
    await scribe.publish(
        start,
        speech_started(start, 0, 0),
        partial(start, 0, "wor"),
        final(start, 0),
    )
    await listener.next("Results", is_final=True)
    assert [message["type"] for message in listener.messages] == ["Results"]
    await listener.vanish()


async def test_lively_events_come_once_and_never_after_their_final(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A replay's partials and finals are dropped; the rest has the shapes of Deepgram's events."""
    gateway = await start_gateway()
    listener = await gateway.listen(interim_results="true", vad_events="true", utterance_end_ms=1000)
    await listener.send(AUDIO)
    start = await scribe.until(listener.session_id, AudioKind.AUDIO)  # from then on events are sent
    published: list[Event] = [
        speech_started(start, 0, 320),
        partial(start, 0, "words"),
    ]
    await scribe.publish(start, *published)
    interim = await listener.next("Results", is_final=False)
    assert interim["channel"]["alternatives"][0]["stable_transcript"] == "wor"
    published += [final(start, 0), utterance_end(start, 900)]
    await scribe.publish(start, *published[2:], *published, finalized(start, 950))
    await listener.next("Results", from_finalize=True)
    assert [message["type"] for message in listener.messages] == [
        "SpeechStarted", "Results", "Results", "UtteranceEnd", "Results",
    ]  # fmt: skip
    assert listener.messages[0]["timestamp"] == 0.32
    assert listener.messages[3]["last_word_end"] == 0.9
    await listener.vanish()


async def test_finalize_goes_to_the_log_in_its_place(start_gateway: StartGateway, scribe: Scribe) -> None:
    """FINALIZE stands behind the audio that was sent before it, and before what was sent after it."""
    gateway = await start_gateway()
    listener = await gateway.listen()
    await listener.send(AUDIO[:6_400])
    await listener.say("Finalize")
    await listener.send(AUDIO[6_400:9_600])
    finalize = await scribe.until(listener.session_id, AudioKind.FINALIZE)
    assert finalize.position == 3_200
    await listener.vanish()


async def test_finalize_may_come_first(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A Finalize that comes first, even before the session is durable, is answered like any other."""
    gateway = await start_gateway()
    listener = await gateway.listen(acks="true")
    await listener.say("Finalize")
    await listener.next("SessionStarted")
    finalize = await scribe.until(listener.session_id, AudioKind.FINALIZE)
    await scribe.publish(finalize, finalized(finalize, 0))
    await listener.next("Results", from_finalize=True)
    await listener.vanish()


async def dropped_session(gateway: RunningGateway) -> tuple[str, Message]:
    """A session with 2 s of durable audio whose client is gone; its id and its last Ack."""
    listener = await gateway.listen(acks="true", interim_results="true", client_id="me")
    await listener.send(AUDIO)
    ack = await listener.acked(32_000)
    await listener.vanish()
    return listener.session_id, ack


async def test_a_dropped_client_resumes_at_another_gateway(
    start_gateway: StartGateway, scribe: Scribe, store: Store
) -> None:
    """It goes on from where the audio is durable, and receives what it missed, in order, however late it is stored."""
    one, two = await start_gateway(), await start_gateway(ordinal=1)
    session_id, ack = await dropped_session(one)
    resuming = asyncio.create_task(
        two.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"], finals_from=1)
    )
    resume = await scribe.until(session_id, AudioKind.RESUME)
    assert (resume.reply_partition, resume.client_id, resume.position) == (1, "me", 32_000)
    assert resume.options.interim_results  # as the session was begun, not as this query says
    await scribe.publish(resume, resumed(resume, 32_500, 3))
    listener = await resuming
    answer = await listener.next("Resumed")
    assert (answer["sequence_id"], answer["position"]) == (0, 32_500)
    await scribe.publish(resume, final(resume, 3, "three"))
    await listener.send(AUDIO)  # goes on while the finals are missing
    await listener.acked(64_500)
    assert not listener.all("Results")
    await store.write([final(resume, 0, "zero"), final(resume, 1, "one")])
    await listener.next("Results", segment_index=1)
    await store.write([final(resume, 2, "two")])
    await listener.next("Results", segment_index=3)
    await listener.say("CloseStream")
    end = await scribe.until(session_id, AudioKind.END)
    assert (end.connection_id, end.position) == (resume.connection_id, 64_500)
    await scribe.publish(end, final(end, 3, "three again"), final(end, 4, "four"), end_at(end, 5))
    assert await listener.closed() == (1000, None)
    assert [result["segment_index"] for result in listener.all("Results")] == [1, 2, 3, 4]
    texts = [result["channel"]["alternatives"][0]["transcript"] for result in listener.all("Results")]
    assert texts == ["one", "two", "three", "four"]


async def test_without_a_transcriber_nothing_is_acknowledged(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A client that resumes goes on at once from its token's position; the Acks come with the transcriber's answer."""
    gateway = await start_gateway(resume_timeout_s=0.2)
    session_id, ack = await dropped_session(gateway)
    listener = await gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    assert (await listener.next("Resumed"))["position"] == 32_000
    await listener.send(AUDIO)
    await scribe.stored(session_id, 64_000)
    resume = await scribe.until(session_id, AudioKind.RESUME)
    await scribe.publish(resume, final(resume, 0))
    await listener.next("Results", segment_index=0)
    assert not listener.all("Ack")
    await scribe.publish(resume, resumed(resume, 32_000, 0))
    await listener.acked(64_000)
    await listener.vanish()


async def test_an_answer_that_does_not_come_is_asked_for_again(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A transcriber that died between noting a RESUME and answering it is asked again, by the same connection."""
    gateway = await start_gateway(resume_timeout_s=0.1, heartbeat_s=0.2)
    session_id, ack = await dropped_session(gateway)
    listener = await gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    await listener.next("Resumed")
    await listener.send(AUDIO)
    first = await scribe.until(session_id, AudioKind.RESUME)
    again = await scribe.until(session_id, AudioKind.RESUME, count=2)
    assert again.connection_id == first.connection_id
    await scribe.publish(again, resumed(again, 32_000, 0))
    await listener.acked(64_000)
    await listener.vanish()


async def test_audio_behind_the_end_is_left_to_the_client(start_gateway: StartGateway, scribe: Scribe) -> None:
    """Audio sent before the answer says that the session had ended is not acknowledged, and the client is told."""
    gateway = await start_gateway(resume_timeout_s=0.2)
    session_id, ack = await dropped_session(gateway)
    listener = await gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    await listener.next("Resumed")
    await listener.send(AUDIO)
    await scribe.stored(session_id, 64_000)
    resume = await scribe.until(session_id, AudioKind.RESUME)
    await scribe.publish(resume, final(resume, 0), end_at(resume, 1))
    await listener.say("CloseStream")
    assert await listener.closed() == (1008, "SESSION_ENDED")
    assert len(listener.all("Results")) == 1
    assert not listener.all("Ack")


async def test_a_resumption_that_is_dropped_does_not_end_the_session(
    start_gateway: StartGateway, scribe: Scribe
) -> None:
    """A client that loses its new connection before it was answered still has its token, and its grace."""
    gateway = await start_gateway(resume_timeout_s=20)
    session_id, ack = await dropped_session(gateway)
    query = {"acks": "true", "session_id": session_id, "resume_token": ack["resume_token"]}
    hasty = await gateway.listen(**query)
    await scribe.until(session_id, AudioKind.RESUME)
    await hasty.vanish()
    patient = await gateway.listen(**query)
    resume = await scribe.until(session_id, AudioKind.RESUME, count=2)
    await scribe.publish(resume, resumed(resume, 32_000, 0))
    await patient.next("Resumed")
    assert AudioKind.END not in {record.kind for record in scribe.records(session_id)}
    await patient.vanish()


async def test_a_newer_connection_takes_the_session_over(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A superseded connection gets an error, and does not end the session."""
    gateway = await start_gateway(resume_timeout_s=0.2, resume_grace_s=0)
    older = await gateway.listen(acks="true")
    await older.send(AUDIO)
    ack = await older.acked(32_000)
    session_id = older.session_id
    newer = await gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
    assert await older.closed() == (1008, "SUPERSEDED")
    await newer.next("Resumed")
    resume = await scribe.until(session_id, AudioKind.RESUME)
    await scribe.publish(resume, resumed(resume, 32_000, 0))
    await newer.send(AUDIO)
    await newer.acked(64_000)
    assert not [record for record in scribe.records(session_id) if record.kind is AudioKind.END]
    await newer.vanish()
    assert (await scribe.until(session_id, AudioKind.END)).position == 64_000


async def test_a_session_that_is_over_gives_its_finals_and_takes_no_audio(
    start_gateway: StartGateway, scribe: Scribe, store: Store
) -> None:
    """A client that comes back after the end receives what it lacks; audio that is left has no session."""
    gateway = await start_gateway()
    for leave in ("CloseStream", "audio"):
        session_id, ack = await dropped_session(gateway)
        resuming = asyncio.create_task(
            gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"])
        )
        resume = await scribe.until(session_id, AudioKind.RESUME)
        await store.write([final(resume, 0, "all")])
        await scribe.publish(resume, end_at(resume, 1))
        listener = await resuming
        assert (await listener.next("Resumed"))["position"] == 32_000
        await listener.next("Results", segment_index=0)
        if leave == "audio":
            await listener.send(AUDIO)
            assert await listener.closed() == (1008, "SESSION_ENDED")
        else:
            await listener.say(leave)
            assert await listener.closed() == (1000, None)
            assert listener.messages[-1]["duration"] == 2.0


async def test_a_session_that_nobody_knows_is_refused(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A session that was over long ago cannot be resumed."""
    gateway = await start_gateway()
    session_id, ack = await dropped_session(gateway)
    resuming = asyncio.create_task(gateway.listen(acks="true", session_id=session_id, resume_token=ack["resume_token"]))
    resume = await scribe.until(session_id, AudioKind.RESUME)
    await scribe.publish(resume, session_end(resume, 0, 0, "unknown"))
    assert await (await resuming).closed() == (1008, "SESSION_UNKNOWN")


async def test_finals_that_do_not_come_are_an_error(start_gateway: StartGateway, scribe: Scribe) -> None:
    """A client whose finals do not come after CloseStream gets an error."""
    gateway = await start_gateway(finals_timeout_s=0.3)
    listener = await gateway.listen()
    await listener.send(AUDIO)
    await listener.say("CloseStream")
    assert await listener.closed() == (1011, "FINALS_LATE")
    await scribe.until(listener.session_id, AudioKind.END)


async def test_a_session_without_audio_is_closed_normally(start_gateway: StartGateway, scribe: Scribe) -> None:
    """CloseStream at once is no error, with and without a container."""
    gateway = await start_gateway()
    raw, wav = await gateway.listen(), await gateway.listen(encoding=None)
    await wav.say("CloseStream")
    assert await wav.closed() == (1000, None)
    await raw.say("CloseStream")
    end = await scribe.until(raw.session_id, AudioKind.END)
    await scribe.publish(end, session_end(end, 0, 0))
    assert await raw.closed() == (1000, None)
    assert raw.messages[-1]["duration"] == wav.messages[-1]["duration"] == 0
