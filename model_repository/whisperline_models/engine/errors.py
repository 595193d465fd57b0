"""The errors that end a request without a result.

EngineError
├── RequestError            the request is invalid: its sender must change it
├── OverloadedError         the lane is full, or the server is closing: the sender may try again later
└── RequestCancelledError   the sender no longer waits for the answer

Any other exception is a bug in the engine, and the sender gets it as an internal error.
"""

from __future__ import annotations


class EngineError(Exception):
    """An expected way for a request to fail; its text is for the sender."""


class RequestError(EngineError):
    """The audio or an option is invalid; the text names it and says what is allowed."""


class OverloadedError(EngineError):
    """The request was not queued, because its lane is full or the server is closing."""


class RequestCancelledError(EngineError):
    """The sender cancelled before the request's first unit of work, so no work was done for it."""
