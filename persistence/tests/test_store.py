"""The store keeps each event once, in whatever order events come, and returns finals unchanged."""

import asyncio
import uuid
from collections.abc import Sequence

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whisperline_contracts import (
    Event,
    Final,
    Partial,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    StreamOptions,
    Word,
)
from whisperline_local import Stack
from whisperline_persistence import Store, StoredSession, StoreRefusedError, StoreUnavailableError

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

on_a_database = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
milliseconds = st.integers(-(2**63), 2**63 - 1)
probabilities = st.floats(0, 1)
indexes = st.integers(0, 2**31 - 1)
words = st.builds(Word, word=texts, start_ms=milliseconds, end_ms=milliseconds, confidence=probabilities)
finals = st.builds(
    Final,
    session_id=st.just("replaced"),
    connection_id=texts,
    client_id=texts,
    time_ms=milliseconds,
    segment_index=indexes,
    start_ms=milliseconds,
    end_ms=milliseconds,
    text=texts,
    words=st.lists(words, max_size=5).map(tuple),
    language=texts,
    confidence=probabilities,
    reason=st.sampled_from(SegmentEnd),
    ends_turn=st.booleans(),
    model=texts,
    model_version=texts,
    position=milliseconds,
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """Draw a session's events, and batches that hold each of them at least once, in any order."""
    count = draw(st.integers(0, 4))
    finals = [a_final("replaced", index) for index in range(count)]
    events: list[Event] = [session_start(), *finals, session_end("replaced", count)]
    delivered = [*events, *draw(st.lists(st.sampled_from(events), max_size=6))]
    delivered = draw(st.permutations(delivered))
    cuts = sorted(draw(st.lists(st.integers(0, len(delivered)), max_size=3)))
    return events, [delivered[a:b] for a, b in zip([0, *cuts], [*cuts, len(delivered)], strict=True)]


def session_start(session_id: str = "replaced", time_ms: int = 1_000) -> SessionStart:
    return SessionStart(
        session_id=session_id,
        connection_id="c1",
        client_id="me",
        time_ms=time_ms,
        sample_rate=48_000,
        channels=2,
        options=StreamOptions(language=None, utterance_end_ms=1_500),
    )


def a_final(session_id: str, index: int, text: str = "so it goes") -> Final:
    spoken = tuple(
        Word(word=word, start_ms=i * 100, end_ms=i * 100 + 90, confidence=1 / (i + 3))
        for i, word in enumerate(text.split())
    )
    return Final(
        session_id=session_id,
        connection_id="c1",
        client_id="me",
        time_ms=2_000 + index,
        segment_index=index,
        start_ms=index * 1_000,
        end_ms=index * 1_000 + 900,
        text=text,
        words=spoken,
        language="en",
        confidence=0.1 + 0.2,
        reason=SegmentEnd.SILENCE,
        model="tiny.en",
        model_version="1",
        position=(index + 1) * 48_000,
    )


def session_end(session_id: str, count: int, time_ms: int = 9_000, **changes: object) -> SessionEnd:
    end = SessionEnd(
        session_id=session_id,
        connection_id="c1",
        client_id="me",
        time_ms=time_ms,
        segment_count=count,
        duration_ms=count * 1_000,
        reason="closed",
    )
    return end.model_copy(update=changes)


def renamed(events: Sequence[Event], session_id: str) -> list[Event]:
    return [event.model_copy(update={"session_id": session_id}) for event in events]


def new_id() -> str:
    return uuid.uuid4().hex


@on_a_database
@given(given_finals=st.lists(finals, max_size=4, unique_by=lambda final: final.segment_index))
async def test_finals_are_read_as_they_were_written(store: Store, given_finals: list[Final]) -> None:
    """Every field of a final comes back equal, floats to the last bit, in the order of the segments."""
    session_id = new_id()
    written = [final.model_copy(update={"session_id": session_id, "client_id": "me"}) for final in given_finals]
    assert await store.write(written) == len(written)
    assert await store.finals(session_id) == sorted(written, key=lambda final: final.segment_index)


@on_a_database
@given(delivery=deliveries())
async def test_order_and_repetition_do_not_matter(
    store: Store, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    """Events in any order, any batches and any number of times leave the same rows as once and in order."""
    events, batches = delivery
    session_id = new_id()
    new = [await store.write(renamed(batch, session_id)) for batch in batches]
    stored = [final for final in renamed(events, session_id) if isinstance(final, Final)]
    assert sum(new) == len(stored)
    assert await store.finals(session_id) == stored
    assert await store.session(session_id) == StoredSession(
        session_id=session_id,
        client_id="me",
        started_ms=1_000,
        sample_rate=48_000,
        channels=2,
        options=StreamOptions(language=None, utterance_end_ms=1_500),
        ended_ms=9_000,
        duration_ms=len(stored) * 1_000,
        segment_count=len(stored),
        end_reason="closed",
    )


async def test_the_first_write_of_a_final_wins(store: Store) -> None:
    """A second final of the same segment with other content changes neither the text nor the words."""
    session_id = new_id()
    first = a_final(session_id, 0, "the first to come")
    assert await store.write([first, a_final(session_id, 0, "in the same batch")]) == 1
    assert await store.write([a_final(session_id, 0, "in a batch of its own and longer")]) == 0
    assert await store.finals(session_id) == [first]


async def test_the_earliest_start_and_end_count(store: Store) -> None:
    """A start that is repeated after a replay, and an end that answers a late RESUME, change nothing."""
    session_id = new_id()
    told = [session_start(session_id, 7), session_start(session_id, 5), session_start(session_id, 6)]
    events: list[Event] = [*told, session_end(session_id, 3, 90), session_end(session_id, 3, 91)]
    for event in events:
        await store.write([event])
    session = await store.session(session_id)
    assert session is not None
    assert (session.started_ms, session.ended_ms) == (5, 90)


async def test_an_unknown_session_leaves_no_row(store: Store) -> None:
    """The end that answers a RESUME of an unknown session is not stored."""
    session_id = new_id()
    await store.write([session_end(session_id, 0, reason="unknown")])
    assert await store.session(session_id) is None
    await store.write([session_end(session_id, 2, 90), session_end(session_id, 0, 80, reason="unknown")])
    session = await store.session(session_id)
    assert session is not None
    assert session.segment_count == 2


async def test_what_is_not_stored_is_passed_over(store: Store) -> None:
    """Partials leave no row."""
    session_id = new_id()
    partial = Partial(**a_final(session_id, 0).model_dump(exclude={"type", "words"}), stable_text="")
    assert await store.write([partial]) == 0
    assert await store.write([]) == 0
    assert await store.session(session_id) is None


async def test_finals_are_read_by_range(store: Store) -> None:
    """A range of segments includes its first index and excludes its end."""
    session_id = new_id()
    written = [a_final(session_id, index) for index in range(5)]
    await store.write(written)
    assert await store.finals(session_id, 1, 3) == written[1:3]
    assert await store.finals(session_id, 3) == written[3:]
    assert await store.finals(session_id, 5) == []
    assert await store.finals(new_id()) == []


async def test_a_segment_without_words_is_stored(store: Store) -> None:
    """A final with empty text becomes a row like any other."""
    session_id = new_id()
    empty = a_final(session_id, 0, "")
    await store.write([empty])
    assert await store.finals(session_id) == [empty]


async def test_nul_in_speech_is_replaced(store: Store) -> None:
    """NUL, which PostgreSQL cannot store, becomes the replacement character in texts and words."""
    session_id = new_id()
    await store.write([a_final(session_id, 0, "so\0 it goes")])
    (stored,) = await store.finals(session_id)
    assert stored == a_final(session_id, 0, "so\ufffd it goes")


@pytest.mark.parametrize(
    "changes",
    [
        {"segment_index": 2**31},
        {"segment_index": -1},
        {"time_ms": 2**63},
        {"position": 2**200},
        {"model": "nul\0"},
        {"session_id": "nul\0"},
        {"session_id": ""},
        {"session_id": "x" * 129},
        {"client_id": "x" * 4_000},
        {"words": (Word(word="w", start_ms=2**63, end_ms=0, confidence=0.5),)},
    ],
    ids=str,
)
async def test_what_the_database_cannot_hold_is_refused(store: Store, changes: dict[str, object]) -> None:
    """A batch with a value out of range is refused as a whole."""
    session_id = new_id()
    with pytest.raises(StoreRefusedError) as refusal:
        await store.write([a_final(session_id, 0), a_final(session_id, 1).model_copy(update=changes)])
    assert not refusal.value.retriable
    assert await store.session(session_id) is None
    assert await store.finals(session_id) == []


async def test_writers_of_the_same_rows_do_not_disturb_each_other(stack: Stack, store: Store) -> None:
    """Two writers of the same events at the same time, in opposite orders, store each of them once."""
    ids = [new_id() for _ in range(10)]
    finals = [a_final(session_id, i) for session_id in ids for i in range(5)]
    events: list[Event] = [*map(session_start, ids), *finals]
    async with Store.open(stack.database_url) as other:
        for _ in range(5):
            new = await asyncio.gather(store.write(events), other.write(events[::-1]))
    assert sum(new) == 0
    for session_id in ids:
        assert await store.finals(session_id) == [a_final(session_id, i) for i in range(5)]


async def test_a_deleted_session_takes_its_rows_along(stack: Stack, store: Store) -> None:
    """Deleting a session's row deletes its segments and words."""
    session_id = new_id()
    await store.write([session_start(session_id), a_final(session_id, 0)])
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        await connection.execute("DELETE FROM sessions WHERE session_id = %s", (session_id,))
        left = await (
            await connection.execute("SELECT count(*) FROM words WHERE session_id = %s", (session_id,))
        ).fetchone()
    assert left == (0,)
    assert await store.finals(session_id) == []


async def test_a_database_that_is_not_there_is_away() -> None:
    """A store opens without its database; requests then raise a retriable error."""
    async with Store.open("postgresql://nobody@127.0.0.1:1/nothing") as store:
        with pytest.raises(StoreUnavailableError) as away:
            await store.ping()
    assert away.value.retriable


async def test_a_database_that_hangs_is_away(stack: Stack) -> None:
    """A request without an answer in time stores nothing and raises a retriable error."""
    session_id = new_id()
    async with Store.open(stack.database_url, answer_s=0.5) as store:
        async with await psycopg.AsyncConnection.connect(stack.database_url) as holding:
            await holding.execute("LOCK TABLE words IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreUnavailableError):
                await store.write([a_final(session_id, 0)])
            await holding.rollback()
        assert await store.finals(session_id) == []
        assert await store.write([a_final(session_id, 0)]) == 1
