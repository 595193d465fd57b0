"""The errors of this package.

    ModelError
    ├── SourceError     the weights are missing, damaged, or not Whisper's
    ├── ExportError     the version cannot be written
    ├── VersionError    the version or its repository does not allow what was asked
    ├── GateError       the version has not passed its gate
    ├── RolloutError    the routing cannot be read, or does not allow the change
    └── ServerError     a Triton server does not do what was asked

The engine and the routing have errors of their own, because copies of them run inside Triton without this package.
"""


class ModelError(Exception):
    """An error that the user of the command line can act on. Its text says how."""


class SourceError(ModelError):
    """The weights are missing, damaged, or not Whisper's."""


class ExportError(ModelError):
    """The version cannot be written."""


class VersionError(ModelError):
    """The version or its repository does not allow what was asked."""


class GateError(ModelError):
    """The version has not passed its gate, or passed it with other content or against another version."""


class RolloutError(ModelError):
    """The routing of sessions cannot be read, or does not allow the change."""


class ServerError(ModelError):
    """A Triton server cannot be reached, or does not do what was asked."""
