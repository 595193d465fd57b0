"""Moved to `whisperline_runtime.create_topics`; these names go when the deployables have moved over."""

from whisperline_runtime.create_topics import create_topics
from whisperline_runtime.errors import PartitionsDifferError as PartitionsDiffer

__all__ = ["PartitionsDiffer", "create_topics"]
