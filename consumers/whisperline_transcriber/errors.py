"""The transcriber's own errors.

    TranscriberError
    ├── LostRaceError        another process decided first: the partition is reloaded from the log
    └── TritonError          Triton gave no answer
        └── RoutingError     Triton did not say which version of the model serves a session

What ends the process is a `whisperline_runtime.errors.ProcessError`: too many dead letters, Kafka that refuses us,
a wrong setting. Any other exception is a defect and ends it, too.
"""


class TranscriberError(Exception):
    """The base of all errors that the transcriber handles itself."""


class LostRaceError(TranscriberError):
    """Another process decided this step of a session first; only its decision counts."""


class TritonError(TranscriberError):
    """Triton gave no answer; `is_retriable` tells whether asking again can help."""

    def __init__(self, message: str, *, is_retriable: bool) -> None:
        super().__init__(message)
        self.is_retriable = is_retriable

    @property
    def version_is_gone(self) -> bool:
        """True if the version that was asked is not served (any more)."""
        return "unknown model" in str(self)

    @property
    def outcome(self) -> str:
        """The outcome's name in the metrics."""
        if self.version_is_gone:
            return "gone"
        return "failed" if self.is_retriable else "refused"


class RoutingError(TritonError):
    """Triton did not say which version serves a session."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_retriable=True)
