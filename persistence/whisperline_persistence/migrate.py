"""Bring a database's schema to this release's version. Several processes may do it at once.

The migrations are plain SQL in `migrations/versions`. Alembic runs all that are due in one transaction.
"""

import logging
import time
from pathlib import Path

import psycopg
import stamina
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine
from whisperline_runtime.retry import INITIAL_S, LONGEST_S

log = logging.getLogger(__name__)

_LOCK_KEY = 0x7768_6973_7065_7231  # key of the database-wide advisory lock that serializes migrations
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database_url: str, wait_s: float = 60.0) -> str:
    """Migrate the database to the newest version and return that version.

    Waits up to `wait_s` for the database to answer and for another migration to finish.
    Raises `TimeoutError` if that is not long enough, and `psycopg.Error` or Alembic's errors if it fails.
    """
    deadline_s = time.monotonic() + wait_s
    with wait_and_connect(database_url, wait_s) as connection:
        # Poll for the lock instead of waiting for it: a session that waits for a lock holds a snapshot, and a CREATE
        # INDEX CONCURRENTLY in the other migration would wait for that snapshot, so both would wait for ever.
        while connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone() != (True,):
            if time.monotonic() > deadline_s:
                raise TimeoutError("another migration of this database did not finish in time")
            time.sleep(0.1)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
        )
        with engine.connect() as upgrading:
            config.attributes["connection"] = upgrading  # env.py runs the migrations on it
            command.upgrade(config, "head")
        return ScriptDirectory.from_config(config).get_current_head() or "none"


def wait_and_connect(database_url: str, wait_s: float) -> psycopg.Connection:
    """Connect, waiting up to `wait_s` for the database to answer. Raises `TimeoutError`."""
    attempts = stamina.retry_context(
        on=psycopg.OperationalError, attempts=None, timeout=wait_s, wait_initial=INITIAL_S, wait_max=LONGEST_S
    )
    try:
        for attempt in attempts:
            with attempt:
                if attempt.num == 2:
                    log.info("waiting for the database")
                return psycopg.connect(database_url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise TimeoutError(f"the database did not answer in time: {error}") from error
    raise AssertionError("an attempt returns or raises")
