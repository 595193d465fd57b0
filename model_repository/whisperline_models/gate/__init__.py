"""The gate of a version: its word error rate and silence on recorded speech, compared with the version in service."""

from whisperline_models.gate.clips import Clip, ClipSet, read_manifest
from whisperline_models.gate.scoring import Score, word_error_rate
from whisperline_models.gate.verification import Verification, verify

__all__ = ["Clip", "ClipSet", "Score", "Verification", "read_manifest", "verify", "word_error_rate"]
