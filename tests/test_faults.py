"""Every session's rows are those of an undisturbed run, whichever process dies while it streams.

Each test kills or restarts one part in the middle of eight sessions and prints the counts.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from jiwer import wer
from stacks import local_settings
from streams import Row, Speech, Streamed, eventually, stored_rows, stream_speech
from whisperline_client import Event, Final
from whisperline_local import Stack
from whisperline_persistence import Store

pytestmark = [pytest.mark.integration, pytest.mark.fault, pytest.mark.asyncio(loop_scope="session")]

FIRST_FINALS_LIMIT_S = 60.0
# Other cuts give other words for the same speech; a segment that is lost or doubled changes their number.
MORE_OR_FEWER_WORDS = 0.2
OTHER_WORDS = 0.5
Fault = Callable[[Stack], Awaitable[None]]


async def _kill(stack: Stack, name: str) -> None:
    before, pid = stack.restarts(name), stack.pid(name)
    stack.kill(name)
    await stack.wait_healthy(name)
    assert (stack.restarts(name), stack.pid(name)) != (before, pid)


async def _restart(stack: Stack, name: str) -> None:
    await stack.stop(name)
    await stack.start(name)


async def _rebalance(stack: Stack) -> None:
    await _restart(stack, "transcriber-1")


async def _pause(stack: Stack) -> None:
    """Suspend a transcriber until the other owns every partition, then resume it with sessions it no longer owns."""
    held, other = stack.log("transcriber"), stack.log("transcriber-1")
    before, every = other.stat().st_size, _taken(held) | _taken(other)

    async def all_taken() -> bool:
        return _taken(other, before) == every

    process = psutil.Process(stack.pid("transcriber"))
    process.suspend()
    try:
        await eventually(all_taken, "the other transcriber to take the partitions of the one that is held")
    finally:
        process.resume()


def _taken(log: Path, since: int = 0) -> set[str]:
    return set(re.findall(r"partition (\d+): from", log.read_bytes()[since:].decode()))


FAULTS: dict[str, Fault] = {
    "transcriber killed": lambda stack: _kill(stack, "transcriber"),
    "persistence killed": lambda stack: _kill(stack, "persistence"),
    "triton killed": lambda stack: _kill(stack, "triton"),
    "gateway killed": lambda stack: _kill(stack, "gateway"),
    "kafka killed": lambda stack: _kill(stack, "kafka"),
    "kafka restarted": lambda stack: _restart(stack, "kafka"),
    "postgres killed": lambda stack: _kill(stack, "postgres"),
    "postgres restarted": lambda stack: _restart(stack, "postgres"),
    "a transcriber leaves and comes back": _rebalance,
    "a transcriber is paused, and loses its partitions": _pause,
}


async def _run(stack: Stack, speech: list[Speech], fault: Fault | None = None) -> list[Streamed]:
    """Stream every piece at once, half of them through each gateway first, with a fault in the middle.

    The fault strikes when each stream has a segment behind it; each is in the middle of another then.
    """
    urls = stack.gateway_urls
    waiting = set(range(len(speech)))
    all_have_finals = asyncio.Event()

    def note(turn: int, event: Event) -> None:
        if isinstance(event, Final):
            waiting.discard(turn)
            if not waiting:
                all_have_finals.set()

    async with asyncio.TaskGroup() as group:
        streams = [
            group.create_task(
                stream_speech(urls[turn % 2 :] + urls[: turn % 2], piece.samples, on_event=partial(note, turn))
            )
            for turn, piece in enumerate(speech)
        ]
        if fault is not None:
            async with asyncio.timeout(FIRST_FINALS_LIMIT_S):
                await all_have_finals.wait()
            assert not all(stream.done() for stream in streams)
            await fault(stack)
    return [stream.result() for stream in streams]


async def _rows(stack: Stack, streamed: list[Streamed]) -> list[list[Row]]:
    async with Store.open(stack.database_url) as store:
        return [await stored_rows(store, each.session_id) for each in streamed]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def undisturbed(stack: Stack, speech: list[Speech]) -> list[list[Row]]:
    """The rows of a run in which nothing dies."""
    rows = await _rows(stack, await _run(stack, speech))
    assert all(len(session) >= 2 for session in rows)
    return rows


@pytest.mark.parametrize("name", FAULTS)
async def test_rows_equal_those_of_an_undisturbed_run(
    stack: Stack, speech: list[Speech], undisturbed: list[list[Row]], name: str, figure: Callable[[str], None]
) -> None:
    """No final is missing, doubled or different, neither in PostgreSQL nor at the client."""
    streamed = await _run(stack, speech, FAULTS[name])
    rows = await _rows(stack, streamed)
    expected, stored = sum(map(len, undisturbed)), sum(map(len, rows))
    equal = sum(ours == theirs for ours, theirs in zip(rows, undisturbed, strict=True))
    figure(f"{name}: {len(rows)} sessions, {expected} segments expected, {stored} stored, {equal} sessions equal")
    assert rows == undisturbed
    if name.startswith("gateway"):
        assert sum(each.connection_count > 1 for each in streamed) >= len(streamed) // 2
    for each, session in zip(streamed, rows, strict=True):
        assert [(final.segment_index, final.text) for final in each.finals] == [(row[0], row[3]) for row in session]


async def test_segments_tile_when_arithmetic_differs(
    tmp_path: Path, speech: list[Speech], undisturbed: list[list[Row]], figure: Callable[[str], None]
) -> None:
    """With noise on every probability in every process, segments follow each other and nothing is lost or doubled."""
    noise = {"WHISPERLINE_TRANSCRIBER_VAD_NOISE": "0.15"}
    env = {"transcriber": noise, "transcriber-1": noise}
    settings = local_settings(tmp_path, transcribers=2, name="tests with noise", service_env=env)
    async with Stack(settings) as noisy:
        streamed = await _run(noisy, speech, lambda running: _kill(running, "transcriber"))
        rows = await _rows(noisy, streamed)
    for session, piece, quiet in zip(rows, speech, undisturbed, strict=True):
        assert [row[0] for row in session] == list(range(len(session)))
        assert all(one[2] <= other[1] for one, other in pairwise(session))
        assert session[-1][2] <= piece.duration_s * 1_000 + 1
        heard, expected = (" ".join(row[3] for row in rows_of).lower() for rows_of in (session, quiet))
        error_rate, n_heard, n_expected = wer(expected, heard), len(heard.split()), len(expected.split())
        figure(
            f"noise: {piece.name}: {n_heard} words in {len(session)} segments, {n_expected} in {len(quiet)} undisturbed"
        )
        assert abs(n_heard - n_expected) < MORE_OR_FEWER_WORDS * n_expected
        assert error_rate < OTHER_WORDS
