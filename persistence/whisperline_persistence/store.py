"""The transcripts in PostgreSQL: what is written there and what is read, and the only SQL there is.

Writing the same events again, in any order and any division into batches, changes nothing: the first write of a
final counts, with its words; of a session's start and of its end, the earliest counts. So whoever writes may
deliver at least once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, Self, TypeAlias, TypeVar

import psycopg
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool
from pydantic.dataclasses import dataclass
from whisperline_contracts import Event, Final, SessionEnd, SessionStart, StreamOptions

_CONNECT_S = 5
_WAITING_REQUESTS = 256  # requests that may wait for a connection; one more is refused at once


StoredEvent: TypeAlias = SessionStart | Final | SessionEnd
_AnyOf = TypeVar("_AnyOf", bound=StoredEvent)


class StoreError(Exception):
    """The database did not do what it was asked. `retriable`: whether the same request may succeed later."""

    retriable = False


class StoreAway(StoreError):
    """The database did not answer, or not in time."""

    retriable = True


class StoreRefused(StoreError):
    """The database will never take these rows: a value is out of range, malformed, or too long."""


@dataclass(frozen=True)
class StoredSession:
    """One session. What its start or its end tells is None until that event was stored."""

    session_id: str
    client_id: str  # the owner
    started_ms: int | None  # since the Unix epoch
    sample_rate: int | None  # Hz
    channels: int | None
    options: StreamOptions | None
    ended_ms: int | None  # since the Unix epoch
    duration_ms: int | None
    segment_count: int | None
    end_reason: Literal["closed", "idle"] | None


class Store:
    """The transcripts of one database, through a pool of connections. Every method raises `StoreError`.

    Opening does not wait for the database: a store may be opened while it is away.
    """

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], answer_s: float) -> None:
        self._pool = pool
        self._answer_s = answer_s

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, max_connections: int = 4, answer_s: float = 20.0) -> AsyncIterator[Self]:
        """Open the store at a libpq URL ("postgresql://user:password@host:port/database").

        A database that takes longer than `answer_s` for one request counts as away.
        """
        pool = AsyncConnectionPool(
            database_url,
            kwargs=_connection_options(answer_s),
            min_size=1,
            max_size=max_connections,
            max_waiting=_WAITING_REQUESTS,
            timeout=_CONNECT_S,
            reconnect_timeout=_CONNECT_S,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )
        await pool.open()
        try:
            yield cls(pool, answer_s)
        finally:
            await pool.close(timeout=_CONNECT_S)

    async def write(self, events: Iterable[Event]) -> int:
        """Store starts, finals and ends, all or none, in one transaction; other events are passed over.

        Returns how many finals were not stored before. An end of reason "unknown" tells nothing about a session
        and is passed over too. PostgreSQL's text holds no NUL: in what was said it becomes U+FFFD.
        """
        statements = _write_statements(list(events))
        if not statements:
            return 0
        async with self._connection() as connection, connection.pipeline() as pipeline:
            cursors = [await connection.execute(sql, values) for sql, values in statements]
            await pipeline.sync()
            row = await cursors[-1].fetchone() if cursors[-1].description else None
        return row[0] if row else 0

    async def finals(self, session_id: str, first_index: int = 0, end_index: int | None = None) -> list[Final]:
        """Return a session's stored finals from `first_index` up to, without, `end_index`, in order."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(Final)) as cursor:
            await cursor.execute(_SELECT_FINALS, {"id": session_id, "first": first_index, "end": end_index})
            return await cursor.fetchall()

    async def session(self, session_id: str) -> StoredSession | None:
        """Return a session, or None if nothing of it is stored."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(StoredSession)) as cursor:
            await cursor.execute(_SELECT_SESSION, (session_id,))
            return await cursor.fetchone()

    async def ping(self) -> None:
        """Ask whether the database answers and has this release's tables."""
        async with self._connection() as connection:
            await connection.execute("SELECT 1 FROM sessions, segments, words LIMIT 0")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        with _translated():
            async with asyncio.timeout(self._answer_s), self._pool.connection() as connection:
                yield connection


def _connection_options(answer_s: float) -> dict[str, Any]:
    answer_ms = int(answer_s * 1000)
    return {
        "connect_timeout": _CONNECT_S,
        "application_name": "whisperline",
        "options": f"-c statement_timeout={answer_ms}",  # the server gives a request up when we have
        "tcp_user_timeout": answer_ms,
    }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise (StoreRefused if _is_refusal(error) else StoreAway)(_reason(error)) from error
    except TimeoutError as error:
        raise StoreAway("the database did not answer in time") from error


def _is_refusal(error: psycopg.Error) -> bool:
    if isinstance(error, psycopg.errors.ForeignKeyViolation):
        return False  # the session was deleted while we wrote: the next attempt writes it anew
    if error.sqlstate is not None and error.sqlstate.startswith("54"):
        return True  # program limit exceeded, such as a value too long for its index
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError)


def _reason(error: psycopg.Error) -> str:
    # The primary message alone: the details that may follow it quote rows, and so what people said.
    return f"{type(error).__name__}: {error.diag.message_primary or error}"


def _write_statements(events: Sequence[Event]) -> list[tuple[str, tuple[str]]]:
    """Return the SQL that stores `events`, with its rows; if it stores finals, the last tells how many are new."""
    starts = _earliest(event for event in events if isinstance(event, SessionStart))
    ends = _earliest(event for event in events if isinstance(event, SessionEnd) and event.reason != "unknown")
    finals = _first_finals(event for event in events if isinstance(event, Final))
    stored: list[StoredEvent] = [*finals, *ends, *starts]
    given: tuple[tuple[str, Sequence[StoredEvent]], ...] = (
        (_INSERT_SESSIONS, _by_session(stored)),
        (_UPDATE_STARTS, starts),
        (_UPDATE_ENDS, ends),
        (_INSERT_FINALS, finals),
    )
    return [(sql, (_rows(of),)) for sql, of in given if of]


def _earliest(events: Iterable[_AnyOf]) -> list[_AnyOf]:
    return _by_session(sorted(events, key=lambda event: event.time_ms, reverse=True))


def _by_session(events: Iterable[_AnyOf]) -> list[_AnyOf]:
    """Return the last event of each session."""
    return list({event.session_id: event for event in events}.values())


def _first_finals(finals: Iterable[Final]) -> list[Final]:
    first: dict[tuple[str, int], Final] = {}
    for final in finals:
        first.setdefault((final.session_id, final.segment_index), _without_nul(final))
    return list(first.values())


def _without_nul(final: Final) -> Final:
    if "\0" not in final.text and not any("\0" in word.word for word in final.words):
        return final
    words = tuple(word.model_copy(update={"word": word.word.replace("\0", "\ufffd")}) for word in final.words)
    return final.model_copy(update={"text": final.text.replace("\0", "\ufffd"), "words": words})


def _rows(events: Iterable[StoredEvent]) -> str:
    return f"[{','.join(event.model_dump_json() for event in events)}]"


# Rows are inserted in the order of their keys, so that two writers of the same rows wait for each other instead
# of for ever. A row that is there already is not written again: it would leave a dead tuple for each redelivery.
_INSERT_SESSIONS = """
    INSERT INTO sessions (session_id, client_id)
    SELECT session_id, client_id FROM json_to_recordset(%s) AS event (session_id text, client_id text)
    ORDER BY session_id
    ON CONFLICT DO NOTHING
"""

_UPDATE_STARTS = """
    UPDATE sessions
    SET started_ms = time_ms, sample_rate = event.sample_rate, channels = event.channels, options = event.options
    FROM json_to_recordset(%s)
        AS event (session_id text, time_ms bigint, sample_rate integer, channels integer, options jsonb)
    WHERE sessions.session_id = event.session_id AND (started_ms IS NULL OR time_ms < started_ms)
"""

_UPDATE_ENDS = """
    UPDATE sessions
    SET ended_ms = time_ms, duration_ms = event.duration_ms, segment_count = event.segment_count, end_reason = reason
    FROM json_to_recordset(%s)
        AS event (session_id text, time_ms bigint, duration_ms bigint, segment_count integer, reason text)
    WHERE sessions.session_id = event.session_id AND (ended_ms IS NULL OR time_ms < ended_ms)
"""

_FINAL_COLUMNS = """
    session_id, segment_index, connection_id, client_id, schema_version, time_ms, start_ms, end_ms, text, language,
    confidence, reason, model, model_version, position
"""

# The words join the segments that this statement itself stored: a segment that lost to an earlier one adds none.
_INSERT_FINALS = f"""
    WITH event AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%s) AS event (
            session_id text, segment_index integer, connection_id text, client_id text, schema_version text,
            time_ms bigint, start_ms bigint, end_ms bigint, text text, language text, confidence double precision,
            reason text, model text, model_version text, position bigint, words json
        )
    ), stored AS (
        INSERT INTO segments ({_FINAL_COLUMNS})
        SELECT {_FINAL_COLUMNS} FROM event ORDER BY session_id, segment_index
        ON CONFLICT DO NOTHING
        RETURNING session_id, segment_index
    ), stored_words AS (
        INSERT INTO words (session_id, segment_index, word_index, word, start_ms, end_ms, confidence)
        SELECT session_id, segment_index, word_index, word.word, word.start_ms, word.end_ms, word.confidence
        FROM stored JOIN event USING (session_id, segment_index), ROWS FROM (
            json_to_recordset(words)
                AS (word text, start_ms bigint, end_ms bigint, confidence double precision)
        ) WITH ORDINALITY AS word (word, start_ms, end_ms, confidence, word_index)
    )
    SELECT count(*) FROM stored
"""  # noqa: S608 - put together from constants

_SELECT_FINALS = f"""
    SELECT {_FINAL_COLUMNS}, (
        SELECT coalesce(json_agg(spoken ORDER BY word_index), '[]') FROM words AS spoken
        WHERE spoken.session_id = segments.session_id AND spoken.segment_index = segments.segment_index
    ) AS words
    FROM segments
    WHERE session_id = %(id)s AND segment_index >= %(first)s AND (%(end)s::integer IS NULL OR segment_index < %(end)s)
    ORDER BY segment_index
"""  # noqa: S608 - put together from constants

_SELECT_SESSION = """
    SELECT session_id, client_id, started_ms, sample_rate, channels, options, ended_ms, duration_ms, segment_count,
        end_reason
    FROM sessions WHERE session_id = %s
"""
