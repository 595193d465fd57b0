"""Sessions, their segments, and the segments' words.

Every key begins with `session_id`, so that each table can be split by its hash later, and so that a session is
read, exported and deleted by one prefix. Rows that refer to a session go with it.
"""

from alembic import op

revision = "0001"
down_revision = None

# The length checks keep keys below what a B-tree entry may hold (2,704 bytes), whatever a producer sends.
_UP = (
    """
    CREATE TABLE sessions (
        session_id text PRIMARY KEY CHECK (char_length(session_id) BETWEEN 1 AND 128),
        client_id text NOT NULL CHECK (char_length(client_id) <= 128),
        started_ms bigint,      -- since the Unix epoch; null until the session's start was read
        sample_rate integer,    -- Hz
        channels integer,
        options jsonb,
        ended_ms bigint,        -- since the Unix epoch; null until the session's end was read
        duration_ms bigint,
        segment_count integer,
        end_reason text
    )
    """,
    "CREATE INDEX sessions_by_client ON sessions (client_id, started_ms DESC, session_id)",
    """
    CREATE TABLE segments (
        session_id text NOT NULL REFERENCES sessions ON DELETE CASCADE,
        segment_index integer NOT NULL CHECK (segment_index >= 0),
        connection_id text NOT NULL,
        client_id text NOT NULL,
        schema_version text NOT NULL,
        time_ms bigint NOT NULL,    -- since the Unix epoch
        start_ms bigint NOT NULL,   -- from the start of the session's audio, as all below
        end_ms bigint NOT NULL,
        text text NOT NULL,         -- empty: the segment held no words
        language text NOT NULL,
        confidence double precision NOT NULL,
        reason text NOT NULL,
        model text NOT NULL,
        model_version text NOT NULL,
        position bigint NOT NULL,   -- samples at the session's rate
        PRIMARY KEY (session_id, segment_index)
    )
    """,
    """
    CREATE TABLE words (
        session_id text NOT NULL,
        segment_index integer NOT NULL,
        word_index integer NOT NULL,
        word text NOT NULL,
        start_ms bigint NOT NULL,
        end_ms bigint NOT NULL,
        confidence double precision NOT NULL,
        PRIMARY KEY (session_id, segment_index, word_index),
        FOREIGN KEY (session_id, segment_index) REFERENCES segments ON DELETE CASCADE
    )
    """,
)


def upgrade() -> None:
    """Create the tables."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables, and every transcript with them."""
    op.execute("DROP TABLE words, segments, sessions")
