"""Brings a database's schema to this release's version. Safe when several processes do it at once.

The migrations lie in `migrations/versions`, are plain SQL, and run through Alembic, each run in one transaction.
"""

import logging
import time
from pathlib import Path

import psycopg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

from whisperline_persistence.backoff import delays_s

log = logging.getLogger(__name__)

_LOCK_KEY = 0x7768_6973_7065_7231  # one advisory lock per purpose in the database: ours, of migrations
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database_url: str, wait_s: float = 60.0) -> str:
    """Migrate the database to the newest version and return that version.

    Waits up to `wait_s` for the database to answer and for another migration to finish.
    Raises `TimeoutError` if that is not long enough, and `psycopg.Error` or what Alembic raises if it fails.
    """
    deadline = time.monotonic() + wait_s
    with _connect(database_url, deadline) as connection:
        _lock(connection, deadline)
        return _upgrade(database_url)


def _connect(database_url: str, deadline: float) -> psycopg.Connection:
    for delay_s in delays_s(cap_s=2.0):
        try:
            return psycopg.connect(database_url, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            if time.monotonic() + delay_s > deadline:
                raise TimeoutError(f"the database did not answer in time: {error}") from error
            log.info("waiting for the database: %s", error)
            time.sleep(delay_s)
    raise AssertionError("delays_s never ends")


def _lock(connection: psycopg.Connection, deadline: float) -> None:
    # Asked for again and again instead of waited for: a session that waits for a lock holds a snapshot, and
    # CREATE INDEX CONCURRENTLY in the migration it waits for would wait for that snapshot, for ever.
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise TimeoutError("another migration of this database did not finish in time")
        time.sleep(0.1)


def _upgrade(database_url: str) -> str:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool)
    with (
        EnvironmentContext(config, scripts, fn=lambda now, _: scripts._upgrade_revs("head", now)) as environment,
        engine.connect() as connection,
    ):
        environment.configure(connection=connection)
        with environment.begin_transaction():
            environment.run_migrations()
    return scripts.get_current_head() or "none"
