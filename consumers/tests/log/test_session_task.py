"""A session's steps are taken in order, and each is decided in the log before its event is published."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from in_memory import LIMIT_S, SECOND, World, Writer, loud, record_of, silent
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    Final,
    Finalized,
    Partial,
    Progress,
    Resumed,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    SpeechStarted,
    StreamOptions,
)
from whisperline_transcriber.errors import LostRaceError
from whisperline_transcriber.log.session_task import SessionTask
from whisperline_transcriber.log.watermark import Watermark
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.session import Session


class Running:
    """A session whose task runs, and methods to write its records."""

    def __init__(self, world: World, chunk: Callable[..., AudioChunk], tasks: asyncio.TaskGroup) -> None:
        self.world = world
        self.watermark = Watermark(0)
        self._writer = Writer(chunk)
        segmentation = world.services.settings.segmentation(closing_ms=None)
        self.task = SessionTask(
            Session.started(chunk(AudioKind.START), segmentation),
            None,
            partition=0,
            watermark=self.watermark,
            services=world.services,
            spawn=lambda work: self.spawned.append(tasks.create_task(work)),
        )
        self.spawned: list[asyncio.Task[object]] = []
        self.running = asyncio.create_task(self.task.run())

    async def write(self, kind: AudioKind, data: bytes = b"", **more: object) -> int:
        """Write a record and run voice activity on it; return its offset."""
        chunk, record = self._writer.next(kind, data, **more)
        self.watermark.note_read(record.offset)
        self.task.append_record(chunk, record)
        await self.world.vad.run()
        offset: int = record.offset
        return offset

    async def ended(self) -> int:
        """Wait until the task has ended; return the result of `run`."""
        async with asyncio.timeout(LIMIT_S):
            end_offset: int = await self.running
        return end_offset


@pytest.fixture
def world(settings: Callable[..., Settings]) -> World:
    return World(settings(idle_timeout_s=90))


@asynccontextmanager
async def session(world: World, chunk: Callable[..., AudioChunk]) -> AsyncIterator[Running]:
    """Run a session until the body ends."""
    async with asyncio.TaskGroup() as tasks:
        running = Running(world, chunk, tasks)
        yield running
        for task in (running.running, *running.spawned):
            task.cancel()


async def test_every_decision_is_in_the_log_before_it_is_published(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """Start, final and end are each in the log before their events are sent, and `run` returns the END's offset."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, loud(2) + silent(1), options=StreamOptions(interim_results=False))
        end = await s.write(AudioKind.END)
        assert await s.ended() == end
    told = [each for each in world.log.happened if not isinstance(each, SpeechStarted | Partial)]
    assert [type(each) for each in told] == [Progress, SessionStart, Progress, Final, Progress, SessionEnd]
    attached, _, decided, final, over, session_end = told
    assert isinstance(attached, Progress)
    assert isinstance(decided, Progress)
    assert isinstance(over, Progress)
    assert [attached.revision, decided.revision, over.revision] == [1, 2, 3]
    assert (decided.final, over.end) == (final, session_end)
    assert (attached.owner, over.next_segment_index) == ("me", 1)


async def test_a_lost_decision_is_not_published(
    world: World, chunk: Callable[..., AudioChunk], progress: Callable[..., Progress]
) -> None:
    """A session that lost a race stops, and does not publish its own decision."""
    world.log.others[2] = progress(owner="another").model_copy(update={"revision": 2})
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, loud(2))
        await s.write(AudioKind.FINALIZE)
        with pytest.raises(LostRaceError, match="another wrote revision 2 first"):
            await s.ended()
    assert world.log.all(Final) == []


async def test_a_step_is_in_progress_until_its_effect_is_durable(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """While Triton decodes, the session is busy and its audio is needed."""
    world.decoding.finals.clear()
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        assert (s.task.is_busy, s.watermark.low()) == (False, 1)
        await s.write(AudioKind.AUDIO, loud(2))
        await s.write(AudioKind.FINALIZE)
        assert (s.task.is_busy, s.watermark.low()) == (True, 1)
        assert s.task.session.untranscribed_samples == 2 * SECOND
        world.decoding.finals.set()
        await world.log.wait_for(Final)
        await asyncio.sleep(0)
        assert (s.task.is_busy, s.task.session.untranscribed_samples) == (False, 0)
        assert s.watermark.low() == 1  # the window of the next segment may hold this audio
        silence = await s.write(AudioKind.AUDIO, silent(11))
        await world.log.wait_for(Progress, 3)
        await asyncio.sleep(0)
        assert s.watermark.low() == silence


async def test_a_start_is_needed_until_its_progress_is_durable(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """A START is needed until its progress is durable; otherwise a crash would lose the session."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        assert s.watermark.low() == 0
        await world.log.wait_for(SessionStart)
        assert s.watermark.low() == 1


async def test_a_finalize_that_finds_no_speech_is_answered(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """A FINALIZE without speech is answered with its position."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, silent(1))
        await s.write(AudioKind.FINALIZE)
        await world.log.wait_for(Finalized)
    assert [each.position_ms for each in world.log.all(Finalized)] == [1_000]


async def test_a_partial_grows_and_numbers_its_segment(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """Speech after a final belongs to the next segment, and the prefix on which two partials agree is stable."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, loud(1))
        await s.write(AudioKind.FINALIZE)
        await world.log.wait_for(Final)
        before = len(world.log.all(Partial))
        for count in (1, 2):
            await s.write(AudioKind.AUDIO, loud(1))
            await world.log.wait_for(Partial, before + count)
    first, second = world.log.all(Partial)[before:][:2]
    assert (first.segment_index, second.segment_index) == (1, 1)
    assert (first.stable_text, second.stable_text) == ("", "so it goes")
    assert [each.segment_index for each in world.log.all(SpeechStarted)] == [0, 1]


async def test_a_partial_never_comes_behind_its_final(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """A partial that Triton answers after its segment has closed is dropped."""
    world.decoding.partials.clear()
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(1))
        await s.write(AudioKind.FINALIZE)
        world.decoding.partials.set()
        await world.log.wait_for(Final)
        for task in s.spawned:
            await task
    assert world.log.all(Partial) == []


async def test_segments_that_close_before_the_last_final_is_decided_follow_each_other(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """Each segment has its own index and is announced before its final, however many wait for Triton."""
    world.decoding.finals.clear()
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        for _ in range(3):
            await s.write(AudioKind.AUDIO, loud(1))
            await s.write(AudioKind.FINALIZE)
        world.decoding.finals.set()
        await world.log.wait_for(Final, 3)
    told = [each for each in world.log.happened if isinstance(each, SpeechStarted | Final)]
    assert [(type(each), each.segment_index) for each in told] == [
        (kind, at) for at in range(3) for kind in (SpeechStarted, Final)
    ]
    finals = world.log.all(Final)
    assert {each.reason for each in finals} == {SegmentEnd.FINALIZE}
    assert [one.end_ms for one in finals[:-1]] == [other.start_ms for other in finals[1:]]


async def test_a_pause_is_decoded_once(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """The text of a pause is shown before its segment closes, and the final has it without another request."""
    world.decoding.said = "So it goes."
    world.decoding.partial_every = 1_000 * SECOND
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(1) + silent(0.25))
        await world.log.wait_for(Partial)
        assert world.log.all(Final) == []
        await s.write(AudioKind.AUDIO, silent(1.6))
        await world.log.wait_for(Final)
    (shown,), (final,) = world.log.all(Partial), world.log.all(Final)
    assert (shown.text, shown.end_ms) == (final.text, final.end_ms)
    assert len(world.decoding.asked) == 1


async def test_a_file_is_decoded_with_the_priority_of_files(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """Whatever room Triton has, a file's pauses are decoded only when they must be, and never as live speech."""
    async with session(world, chunk) as s:
        s.task.session.options = StreamOptions(priority="file", interim_results=False)
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(1) + silent(0.25) + loud(1) + silent(0.25))
        assert world.decoding.priorities == []
        await s.write(AudioKind.AUDIO, silent(1.6))
        await world.log.wait_for(SpeechStarted)
        await world.vad.run()
        await world.log.wait_for(Final)
    assert world.decoding.priorities == ["file"]


async def test_a_speculation_that_fails_is_decoded_when_it_is_needed(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """Without the text of the pause nothing can be decided, so the request is repeated until it is answered."""
    world.decoding.speculations_fail = True
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(1) + silent(0.25))
        for task in s.spawned:
            await task
        world.decoding.admits_speculation = False
        await s.write(AudioKind.AUDIO, silent(1.6))
        await world.log.wait_for(Partial)
        await world.vad.run()
        await world.log.wait_for(Final)
    assert [each.text for each in world.log.all(Final)] == ["so it goes"]


async def test_options_that_cannot_be_honoured_end_the_session_at_its_start(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """A refused session tells why and ends, and the audio that was already sent is not heard."""
    world.decoding.refuses = "language: this model has no de, only en."
    async with session(world, chunk) as s:
        start = await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, loud(1) + silent(1))
        await s.write(AudioKind.FINALIZE)
        assert await s.ended() == start
    assert [type(each) for each in world.log.happened] == [Progress, Progress, SessionEnd]
    (end,) = world.log.all(SessionEnd)
    assert (end.reason, end.message) == ("refused", world.decoding.refuses)


async def test_noise_tells_nobody_of_a_turn(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """A segment without words makes no event, and a FINALIZE in it is answered like one in silence."""
    world.decoding.said = ""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(2))
        await s.write(AudioKind.FINALIZE)
        await world.log.wait_for(Finalized)
    assert [type(each) for each in world.log.happened] == [Progress, SessionStart, Progress, Finalized]
    assert world.log.counted["s"].next_segment_index == 0


async def test_words_of_partials_that_the_final_does_not_have_are_taken_back(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """If a segment turns out to be noise, an empty partial replaces what was shown."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.write(AudioKind.AUDIO, loud(1))
        await world.log.wait_for(Partial)
        world.decoding.said = ""
        await s.write(AudioKind.FINALIZE)
        await world.log.wait_for(Finalized)
    assert [(each.text, each.segment_index) for each in world.log.all(Partial)] == [("so it goes", 0), ("", 0)]
    assert world.log.all(Final) == []


async def test_connections_that_resume_behind_the_end_are_told_so(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """Each connection that resumes after the END is answered, after the connection that ended the session."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        world.decoding.finals.clear()
        await s.write(AudioKind.AUDIO, loud(1))
        await s.write(AudioKind.END)
        await s.write(AudioKind.RESUME, connection_id="late")
        world.decoding.finals.set()
        await s.ended()
    ends = world.log.all(SessionEnd)
    assert [(each.connection_id, each.reason, each.duration_ms) for each in ends] == [
        ("c", "closed", 1_000),
        ("late", "closed", 1_000),
    ]


async def test_a_resumption_is_answered_with_the_end_of_the_durable_audio(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """A RESUME is answered with the end of the durable audio, under the id of the connection that resumed."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await s.write(AudioKind.AUDIO, silent(0.5))
        await s.write(AudioKind.RESUME, connection_id="second")
        await world.log.wait_for(Resumed)
    (resumed,) = world.log.all(Resumed)
    assert (resumed.position, resumed.next_segment_index, resumed.connection_id) == (8_000, 0, "second")


async def test_an_idle_session_is_ended_once_for_each_connection(
    world: World, chunk: Callable[..., AudioChunk]
) -> None:
    """One END is written for each connection, because an END of a replaced connection has no effect."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        soon_s, later_s = time.monotonic() + 80, time.monotonic() + 100
        await s.task.end_if_idle(soon_s)
        assert world.log.ends == []
        for _ in range(2):
            await s.task.end_if_idle(later_s)
        assert [each.connection_id for each in world.log.ends] == ["c"]
        await s.write(AudioKind.RESUME, connection_id="d")
        await s.task.end_if_idle(later_s + 100)
        assert [each.connection_id for each in world.log.ends] == ["c", "d"]


async def test_an_end_that_the_transcriber_wrote_says_idle(world: World, chunk: Callable[..., AudioChunk]) -> None:
    """An END that the transcriber wrote takes effect when it is read back, with the reason idle."""
    async with session(world, chunk) as s:
        await s.write(AudioKind.START)
        await world.log.wait_for(SessionStart)
        await s.task.end_if_idle(time.monotonic() + 100)
        (end,) = world.log.ends
        s.task.append_record(end, record_of(end, offset=1))
        await world.vad.run()
        await s.ended()
    assert [each.reason for each in world.log.all(SessionEnd)] == ["idle"]
