"""The transcriber's own errors.

    TranscriberError
    ├── LostRaceError        another process decided first: the partition is reloaded from the log
    └── TritonError          Triton gave no answer
        └── RoutingError     Triton did not say which version of the model serves a session

A `whisperline_runtime.errors.ProcessError` ends the process on purpose: too many dead letters, a Kafka that refuses
this client, a wrong setting. Any other exception is a defect and ends it, too.
"""


class TranscriberError(Exception):
    """Base of the errors that the transcriber handles itself."""


class LostRaceError(TranscriberError):
    """Another process decided this step of a session first; only its decision counts."""


class TritonError(TranscriberError):
    """Triton gave no answer. If `is_retriable`, the same request may succeed later."""

    def __init__(self, message: str, *, is_retriable: bool) -> None:
        super().__init__(message)
        self.is_retriable = is_retriable

    @property
    def version_is_gone(self) -> bool:
        """True if Triton does not serve the requested version, or no longer does."""
        return "unknown model" in str(self)

    @property
    def outcome(self) -> str:
        """The outcome's label in the metrics: `gone`, `failed` or `refused`."""
        if self.version_is_gone:
            return "gone"
        return "failed" if self.is_retriable else "refused"


class RoutingError(TritonError):
    """Triton did not say which version serves a session."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_retriable=True)
