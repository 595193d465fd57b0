"""The setting that says where the database is, for every deployable that opens a `Store`."""

from typing import Annotated, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, SecretStr


def checked_url(url: SecretStr) -> SecretStr:
    """Refuse what libpq cannot read: a store would take it for a database that is away. Never tell it: it is secret."""
    try:
        conninfo_to_dict(url.get_secret_value())
    except psycopg.ProgrammingError:
        raise ValueError("is not of the form postgresql://user:password@host:port/database") from None
    return url


DatabaseUrl: TypeAlias = Annotated[SecretStr, AfterValidator(checked_url)]  # libpq URL
