"""Check the version that every message carries; define the one error that reading a message raises.

A newer minor version only adds fields: readers use the ones they know and ignore the rest. A newer major version
changes the meaning of fields: readers refuse it, and the record goes to the dead letters.
"""

import re

from pydantic import BaseModel, Field

SCHEMA_VERSION = "1.1"
SCHEMA_MAJOR = int(SCHEMA_VERSION.split(".", maxsplit=1)[0])

_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")


class UnreadableMessage(ValueError):
    """A record that this release cannot read. Never retry it: reading it again fails in the same way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_version(version: str) -> None:
    """Raise `UnreadableMessage` unless `version` ("major.minor") is of a major that this release reads."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UnreadableMessage(f"schema version {version[:32]!r} is not of the form 'major.minor'")
    if int(match[1]) != SCHEMA_MAJOR:
        raise UnreadableMessage(f"schema version {version} cannot be read: this release reads {SCHEMA_MAJOR}.x")


class _Envelope(BaseModel):
    schema_version: str = Field(alias="schema")


def check_json_version(value: bytes) -> None:
    """Check the version of a JSON message. Do this before reading any other field: a newer major may change them all.

    Raises `UnreadableMessage`, and pydantic's `ValidationError` if `value` is not a JSON object with a version.
    """
    check_version(_Envelope.model_validate_json(value).schema_version)
