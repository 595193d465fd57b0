"""Manage the versions in a Triton model repository: bring them into service and out of it."""

from whisperline_models.rollout.assembly import assemble
from whisperline_models.rollout.lifecycle import promote, publish, remove, roll_back, start_canary
from whisperline_models.rollout.repository import Repository
from whisperline_models.rollout.servers import Server, resolve

__all__ = ["Repository", "Server", "assemble", "promote", "publish", "remove", "resolve", "roll_back", "start_canary"]
