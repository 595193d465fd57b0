"""Write and read the transcripts in PostgreSQL. All queries of the project are in this module.

Writing the same events again, in any order and in any batches, changes nothing: the first write of a
final counts, with its words; of a session's start and of its end, the earliest counts. So a writer may deliver at
least once.
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
from whisperline_runtime import tracing

_CONNECT_S = 5
_WAITING_REQUESTS = 256  # requests that may wait for a connection; further ones are refused at once


StoredEvent: TypeAlias = SessionStart | Final | SessionEnd
_AnyOf = TypeVar("_AnyOf", bound=StoredEvent)


class StoreError(Exception):
    """A request to the database failed. If `retriable`, the same request may succeed later."""

    retriable = False


class StoreUnavailableError(StoreError):
    """The database did not answer in time, or not at all."""

    retriable = True


class StoreRefusedError(StoreError):
    """The database will never take these rows: a value is out of range, malformed, or too long."""


@dataclass(frozen=True)
class StoredSession:
    """One session. The fields of its start, and those of its end, are None until that event is stored."""

    session_id: str
    client_id: str  # the owner
    started_ms: int | None  # since the Unix epoch
    sample_rate: int | None  # Hz
    channels: int | None
    options: StreamOptions | None
    ended_ms: int | None  # since the Unix epoch
    duration_ms: int | None
    segment_count: int | None
    end_reason: Literal["closed", "idle", "refused"] | None


class Store:
    """The transcripts of one database, through a pool of connections. Every method raises `StoreError`.

    Opening does not wait for the database: a store may be opened while the database is unavailable.
    """

    def __init__(self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], answer_s: float) -> None:
        self._pool = pool
        self._answer_s = answer_s

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, max_connections: int = 4, answer_s: float = 20.0) -> AsyncIterator[Self]:
        """Open the store at a libpq URL ("postgresql://user:password@host:port/database").

        A database that takes longer than `answer_s` seconds for one request counts as unavailable.
        """
        if tracing.is_on():
            from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor  # noqa: PLC0415 - for traces alone

            if not PsycopgInstrumentor().is_instrumented_by_opentelemetry:
                PsycopgInstrumentor().instrument()  # a span for each statement: its SQL, never its values
        answer_ms = int(answer_s * 1000)
        pool = AsyncConnectionPool(
            database_url,
            kwargs={
                "connect_timeout": _CONNECT_S,
                "application_name": "whisperline",
                "options": f"-c statement_timeout={answer_ms}",  # the server abandons a request when this side does
                "tcp_user_timeout": answer_ms,
            },
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
        """Store starts, finals and ends in one transaction, all or none; skip other events.

        Returns the number of finals that were not stored before. An end with the reason "unknown" says nothing about
        its session and is skipped too. PostgreSQL's text holds no NUL: in spoken text it becomes U+FFFD.
        """
        statements = write_statements(list(events))
        if not statements:
            return 0
        async with self._connection() as connection, connection.pipeline() as pipeline:
            cursors = [await connection.execute(sql, values) for sql, values in statements]
            await pipeline.sync()
            row = await cursors[-1].fetchone() if cursors[-1].description else None
        return row[0] if row else 0

    async def finals(self, session_id: str, first_index: int = 0, end_index: int | None = None) -> list[Final]:
        """Return a session's stored finals with indices in [first_index, end_index), in order."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(Final)) as cursor:
            await cursor.execute(_SELECT_FINALS, {"id": session_id, "first": first_index, "end": end_index})
            return await cursor.fetchall()

    async def session(self, session_id: str) -> StoredSession | None:
        """Return a session, or None if nothing of it is stored."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(StoredSession)) as cursor:
            await cursor.execute(_SELECT_SESSION, (session_id,))
            return await cursor.fetchone()

    async def ping(self) -> None:
        """Return normally if the database answers and has this release's tables; raise `StoreError` otherwise."""
        async with self._connection() as connection:
            await connection.execute("SELECT ends_turn FROM sessions, segments, words LIMIT 0")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        with translated():
            async with asyncio.timeout(self._answer_s), self._pool.connection() as connection:
                yield connection


@contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg's errors as `StoreError`s."""
    try:
        yield
    except psycopg.Error as error:
        # Only the primary message: the details that may follow it quote rows, which hold spoken text.
        reason = f"{type(error).__name__}: {error.diag.message_primary or error}"
        if isinstance(error, psycopg.errors.ForeignKeyViolation):
            refused = False  # the session was deleted while we wrote: the next attempt writes it anew
        elif error.sqlstate is not None and error.sqlstate.startswith("54"):
            refused = True  # program limit exceeded, such as a value too long for its index
        else:
            refused = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
        raise (StoreRefusedError if refused else StoreUnavailableError)(reason) from error
    except TimeoutError as error:
        raise StoreUnavailableError("the database did not answer in time") from error


def write_statements(events: Sequence[Event]) -> list[tuple[str, tuple[str]]]:
    """Return the SQL statements that store `events`, with their rows.

    If there are finals, the last statement returns the number of new ones.
    """
    starts = earliest(event for event in events if isinstance(event, SessionStart))
    ends = earliest(event for event in events if isinstance(event, SessionEnd) and event.reason != "unknown")
    first: dict[tuple[str, int], Final] = {}
    for event in events:
        if isinstance(event, Final):
            first.setdefault((event.session_id, event.segment_index), without_nul(event))
    finals = list(first.values())
    stored: list[StoredEvent] = [*finals, *ends, *starts]
    statements: tuple[tuple[str, Sequence[StoredEvent]], ...] = (
        (_INSERT_SESSIONS, list({event.session_id: event for event in stored}.values())),
        (_UPDATE_STARTS, starts),
        (_UPDATE_ENDS, ends),
        (_INSERT_FINALS, finals),
    )
    return [(sql, (f"[{','.join(row.model_dump_json() for row in rows)}]",)) for sql, rows in statements if rows]


def earliest(events: Iterable[_AnyOf]) -> list[_AnyOf]:
    """Return the earliest event of each session."""
    latest_first = sorted(events, key=lambda event: event.time_ms, reverse=True)
    return list({event.session_id: event for event in latest_first}.values())


def without_nul(final: Final) -> Final:
    """Return the final with U+FFFD for each NUL in its text and words."""
    if "\0" not in final.text and not any("\0" in word.word for word in final.words):
        return final
    words = tuple(word.model_copy(update={"word": word.word.replace("\0", "\ufffd")}) for word in final.words)
    return final.model_copy(update={"text": final.text.replace("\0", "\ufffd"), "words": words})


# Rows are inserted in the order of their keys, so that two writers of the same rows cannot deadlock. A row that
# exists already is not written again, because that would leave a dead tuple for each redelivery.
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
    confidence, reason, ends_turn, model, model_version, position
"""

# Words are joined to the segments that this statement stored: a final whose segment existed already adds no words.
_INSERT_FINALS = f"""
    WITH event AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%s) AS event (
            session_id text, segment_index integer, connection_id text, client_id text, schema_version text,
            time_ms bigint, start_ms bigint, end_ms bigint, text text, language text, confidence double precision,
            reason text, ends_turn boolean, model text, model_version text, position bigint, words json
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
