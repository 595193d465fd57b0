"""Stores transcripts: the schema and its migrations, the consumer that fills it, and the only SQL there is.

Errors:

    StoreError          the database did not do what it was asked
    ├── StoreAway       it did not answer, or not in time: the same request may succeed later
    └── StoreRefused    it will never take these rows
"""

from whisperline_persistence.database_url import DatabaseUrl
from whisperline_persistence.migrate import migrate
from whisperline_persistence.store import Store, StoreAway, StoredSession, StoreError, StoreRefused

__all__ = ["DatabaseUrl", "Store", "StoreAway", "StoreError", "StoreRefused", "StoredSession", "migrate"]
