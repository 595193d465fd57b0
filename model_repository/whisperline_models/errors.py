"""The errors of this package.

ModelError
├── SourceError    the weights are missing, damaged, or not Whisper's
├── ExportError    the version cannot be written
├── ParityError    the export does not agree with the oracle
├── VersionError   the version or its repository is not as it must be for what was asked
├── GateError      the version has not passed its gate
└── ServerError    a Triton server does not do what was asked
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


class VersionError(ModelError):
    """The version or its repository is not as it must be for what was asked."""


class GateError(ModelError):
    """The version has not passed its gate, or another one than this content needs."""


class ServerError(ModelError):
    """A Triton server cannot be reached, or does not do what was asked."""
