"""Triton's Python backend of `whisper_rollout`: session ids in, versions out.

The model reads `rollout.json` again when the file has been replaced. So a change of the routing needs no reload, and
survives a restart. If the new file cannot be read, or names a version that is not in this repository, the model logs
an error and keeps the previous state. (The latter can happen while a version is being copied to the servers.)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only

sys.path.insert(0, str(Path(__file__).parent))

from state import Rollout, RolloutError  # type: ignore[import-not-found]  # the copy beside this file

Stamp = tuple[int, int]


class VersionAbsentError(RolloutError):  # type: ignore[misc]
    """The state names a version that is not in this server's repository."""


class TritonPythonModel:
    """Returns the version for each session, from the newest state that could be read."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - the interface of Triton
        """Read the state. An error here, if it cannot be read, keeps Triton from loading the model.

        If the state names a missing version, the newest version in the repository serves every session.
        """
        self.path = Path(__file__).parents[1] / "rollout.json"
        self.versions = Path(__file__).parents[2] / "whisper"
        self.stamp = self.read_stamp()
        try:
            self.rollout = self.read_rollout()
        except VersionAbsentError as error:
            newest = max(int(folder.name) for folder in self.versions.iterdir() if folder.name.isdigit())
            self.rollout = Rollout(newest)
            pb_utils.Logger.log_error(f"{self.path}: {error}; version {newest} is the default")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each row of the requests from the current state of the file."""
        stamp = self.read_stamp()
        if stamp != self.stamp:
            self.stamp = stamp
            try:
                self.rollout = self.read_rollout()
            except (OSError, RolloutError) as error:
                pb_utils.Logger.log_error(f"{self.path}: {error}; version {self.rollout.default} stays the default")
        responses = []
        for request in requests:
            sessions = pb_utils.get_input_tensor_by_name(request, "session").as_numpy()
            versions = [self.rollout.version_of(name.decode(errors="replace")) for name in sessions.reshape(-1)]
            output = np.array(versions, np.int64).reshape(sessions.shape)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("version", output)]))
        return responses

    def read_rollout(self) -> Rollout:
        """Read the state. Raises `RolloutError`, or `VersionAbsentError` if a version is not in this repository."""
        rollout = Rollout.from_json(self.path.read_text())
        named = {rollout.default, rollout.canary.version if rollout.canary else rollout.default}
        absent = [version for version in named if not (self.versions / str(version)).is_dir()]
        if absent:
            raise VersionAbsentError(f"version {absent[0]} is not in this repository")
        return rollout

    def read_stamp(self) -> Stamp | None:
        """Return a value that changes when the file is replaced; None while there is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino
