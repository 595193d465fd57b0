"""Store transcripts: the schema and its migrations, the consumer that fills it, and the only SQL there is.

Errors:

    StoreError                    a request to the database failed
    ├── StoreUnavailableError     it did not answer, or not in time: the same request may succeed later
    └── StoreRefusedError         it will never take these rows
"""

from whisperline_persistence.database_url import DatabaseUrl
from whisperline_persistence.migrate import migrate
from whisperline_persistence.store import (
    Store,
    StoredSession,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)

__all__ = [
    "DatabaseUrl",
    "Store",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StoredSession",
    "migrate",
]
