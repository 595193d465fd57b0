"""The command `whisperline-models`: makes versions and brings them into service."""

from whisperline_models.cli.versions import app

__all__ = ["app"]
