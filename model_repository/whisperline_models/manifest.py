"""The `manifest.json` of a version: its source, the checksum of every file, and the result of its gate."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from whisperline_models.errors import VersionError
from whisperline_models.files import sha256_of_file, write_atomically

MANIFEST = "manifest.json"


class Gate(BaseModel):
    """The result of `verify`. It is valid only for the version whose digest is `content`.

    Word error rates are fractions, over the clips with speech. `against` is the digest of the version that was in
    service, None if there was none.
    """

    model_config = ConfigDict(frozen=True)

    content: str
    passed: bool
    verified_at: str
    set_name: str
    set_sha256: str
    clips: int
    audio_s: float
    speech_s: float = 0.0  # manifests of older tools lack it
    word_error_rate: float
    most_word_error_rate: float
    heard_in_non_speech: tuple[str, ...]
    non_speech_clips: int
    against: str | None = None
    against_word_error_rate: float | None = None
    equal_tokens_clips: int | None = None


class Waiver(BaseModel):
    """The reason why a version was published without a gate."""

    model_config = ConfigDict(frozen=True)

    content: str
    reason: str
    waived_at: str


class Manifest(BaseModel):
    """The manifest of a version. Fields that only the engine reads are kept unchanged."""

    model_config = ConfigDict(frozen=True, extra="allow")  # without `extra`, the engine's fields would be lost

    model: str
    precision: str
    source: dict[str, str]
    dimensions: dict[str, int]
    files: dict[str, str]
    gate: Gate | None = None
    waiver: Waiver | None = None

    @property
    def content(self) -> str:
        """The digest that identifies the version: of its files' checksums and every field but gate and waiver."""
        # The order of keys must not matter, because newer tools may read and rewrite the manifest.
        fields = self.model_dump(mode="json", exclude={"gate", "waiver"}, exclude_none=True)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a version. Raises `VersionError` if there is none or it cannot be read."""
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError as error:
            raise VersionError(f"{folder} is no version: it has no {MANIFEST}; make one with `export`") from error
        except ValidationError as error:
            raise VersionError(f"{path} cannot be read: {error}") from error

    @classmethod
    def read_checked(cls, folder: Path) -> Manifest:
        """Read the manifest of a version and compare every file with it. Raises `VersionError` if one differs."""
        manifest, found = cls.read(folder), file_checksums(folder)
        differing = sorted(name for name in {*found, *manifest.files} if found.get(name) != manifest.files.get(name))
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise VersionError(f"{folder} is not what was exported: {', '.join(differing[:3])}{more}; export it again")
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder of a version, atomically."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        write_atomically(folder / MANIFEST, json.dumps(fields, indent=2) + "\n")


def file_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a version except its manifest, by the file's path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files if path != folder / MANIFEST}


def utc_now() -> str:
    """Return the current time in UTC, in the ISO 8601 format of manifests."""
    return datetime.now(UTC).isoformat(timespec="seconds")
