"""The `manifest.json` of a version: what it is, the sum of every file, and how it passed its gate."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from whisperline_models.errors import VersionError
from whisperline_models.files import sha256_of_file, write_whole

MANIFEST = "manifest.json"


class Gate(BaseModel):
    """What `verify` found; it speaks for the content whose digest is `content`, and for no other.

    Word error rates are fractions over the spoken clips; `against` is the digest of the version in service then.
    """

    model_config = ConfigDict(frozen=True)

    content: str
    passed: bool
    verified_at: str
    set_name: str
    set_sha256: str
    clips: int
    audio_s: float
    speech_s: float = 0.0  # older gates did not say
    word_error_rate: float
    most_word_error_rate: float
    heard_in_non_speech: tuple[str, ...]
    non_speech_clips: int
    against: str | None = None
    against_word_error_rate: float | None = None
    equal_tokens_clips: int | None = None


class Waiver(BaseModel):
    """Why a version was published without a gate."""

    model_config = ConfigDict(frozen=True)

    content: str
    reason: str
    waived_at: str


class Manifest(BaseModel):
    """A version's manifest; fields that only decoding reads are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    precision: str
    source: dict[str, str]
    dimensions: dict[str, int]
    files: dict[str, str]
    gate: Gate | None = None
    waiver: Waiver | None = None

    @property
    def content(self) -> str:
        """The digest of all that the version is: the files' sums and every field but what gate and waiver say."""
        fields = self.model_dump(mode="json", exclude={"gate", "waiver"}, exclude_none=True)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def english_only(self) -> bool:
        """Whether the model knows no other language; the multilingual vocabularies are larger."""
        return self.dimensions["n_vocab"] < 51865

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a version's manifest; raises `VersionError` where there is none or it cannot be read."""
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError as error:
            raise VersionError(f"{folder} is no version: it has no {MANIFEST}; make one with `export`") from error
        except ValidationError as error:
            raise VersionError(f"{path} cannot be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Write it into a version's folder, whole."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        write_whole(folder / MANIFEST, json.dumps(fields, indent=2) + "\n")


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a version but the manifest, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files if path != folder / MANIFEST}


def checked(folder: Path) -> Manifest:
    """Read a version's manifest and hold every file against it; raises `VersionError` where one differs."""
    manifest, found = Manifest.read(folder), sums(folder)
    differing = sorted(name for name in {*found, *manifest.files} if found.get(name) != manifest.files.get(name))
    if differing:
        some = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise VersionError(f"{folder} is not what was exported: {some}; export it again")
    return manifest
