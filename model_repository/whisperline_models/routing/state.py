"""The routing of sessions to versions: the state in `rollout.json`, and the changes that are allowed.

This file is copied into a Triton model, so it imports only the standard library. For the same reason it defines its own
`RolloutError` and does not use the one in `whisperline_models.errors`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

KEPT = 10  # earlier defaults to which `rolled_back` can return


class RolloutError(ValueError):
    """The state cannot be read, or the change cannot be made; the text says why."""


@dataclass(frozen=True)
class Canary:
    """A version on trial and the share of sessions that it serves, 0 to 1."""

    version: int
    share: float


@dataclass(frozen=True)
class Rollout:
    """The default version, the canary beside it if any, and the previous defaults, oldest first."""

    default: int
    canary: Canary | None = None
    previous: tuple[int, ...] = ()
    changed_unix_s: float = 0.0

    def version_of(self, session: str) -> int:
        """Return the version that serves a session.

        A hash places each session on a scale from 0 to 1, and the canary serves the sessions below its share. The place
        depends only on the session's id and the canary's number. So sessions only join the canary as its share grows,
        and the next canary starts with other sessions.
        """
        if self.canary is None:
            return self.default
        digest = hashlib.sha256(f"{self.canary.version}:{session}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return self.canary.version if place < self.canary.share else self.default

    def with_canary(self, version: int, share: float) -> Rollout:
        """Return the state in which a version serves a share of the sessions. Raises `RolloutError`."""
        if version == self.default:
            raise RolloutError(f"version {version} is the default already")
        if not 0 < share <= 1:
            raise RolloutError("a canary's share is above 0 and at most 100 %")
        return replace(self, canary=Canary(version, share))

    def promoted(self) -> Rollout:
        """Return the state with the canary as the default. Raises `RolloutError`."""
        if self.canary is None:
            raise RolloutError("there is no canary to promote: start one with `canary`")
        return Rollout(self.canary.version, None, (*self.previous, self.default)[-KEPT:])

    def rolled_back(self) -> Rollout:
        """Return the state without the canary, or without one, with the previous default. Raises `RolloutError`."""
        if self.canary is not None:
            return replace(self, canary=None)
        if not self.previous:
            raise RolloutError(f"version {self.default} is the first default: there is none to go back to")
        return Rollout(self.previous[-1], None, self.previous[:-1])

    def without(self, version: int) -> Rollout:
        """Return the state without a version that serves no session. Raises `RolloutError`."""
        if version == self.default:
            raise RolloutError(f"version {version} is the default: promote another first, or roll back")
        if self.canary is not None and version == self.canary.version:
            raise RolloutError(f"version {version} is the canary: promote it, or roll back first")
        return replace(self, previous=tuple(number for number in self.previous if number != version))

    def to_json(self) -> str:
        """Return the state as `rollout.json` holds it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Rollout:
        """Read what `to_json` wrote. Raises `RolloutError`."""
        try:
            fields = json.loads(text)
            canary = fields.get("canary")
            return cls(
                default=read_version(fields["default"]),
                canary=None if canary is None else Canary(read_version(canary["version"]), read_share(canary["share"])),
                previous=tuple(map(read_version, fields.get("previous", ()))),
                changed_unix_s=float(fields.get("changed_unix_s", 0.0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RolloutError(f"rollout.json is not the state of a rollout: {error!r}") from error


def read_version(value: object) -> int:
    """Return the value if it is a version's number. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no version")
    return value


def read_share(value: object) -> float:
    """Return the value if it is a share from 0 to 1. Raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is no share from 0 to 1")
    return float(value)
