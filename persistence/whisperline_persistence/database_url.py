"""The type of the setting `database_url`, for every deployable that opens a `Store`."""

from typing import Annotated, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, SecretStr


def checked_url(url: SecretStr) -> SecretStr:
    """Return `url` if libpq can parse it; raise `ValueError` otherwise.

    A store would take a malformed URL for a database that is unavailable. The error does not quote the URL, which
    holds a password.
    """
    try:
        conninfo_to_dict(url.get_secret_value())
    except psycopg.ProgrammingError:
        raise ValueError("is not of the form postgresql://user:password@host:port/database") from None
    return url


DatabaseUrl: TypeAlias = Annotated[SecretStr, AfterValidator(checked_url)]  # libpq URL
