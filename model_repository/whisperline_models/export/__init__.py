"""Write a checkpoint as a version that Triton can serve."""

from whisperline_models.export.version import export_version

__all__ = ["export_version"]
