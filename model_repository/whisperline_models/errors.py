"""The errors of this package.

ModelError
├── SourceError    the weights are missing, damaged, or not Whisper's
├── ExportError    the version cannot be written
└── ParityError    the export does not agree with the oracle
"""

from __future__ import annotations


class ModelError(Exception):
    """What a user of the command line can act upon; its text says how."""


class SourceError(ModelError):
    """The weights are missing, damaged, or not Whisper's."""


class ExportError(ModelError):
    """The version cannot be written."""


class ParityError(ModelError):
    """The export does not agree with the oracle, or the oracle cannot run."""
