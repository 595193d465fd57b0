"""The errors that end a request without a result.

EngineError
├── RequestError            the request is wrong: its sender must change it
├── OverloadedError         the lane is full, or the server is closing: the sender may ask again later
└── RequestCancelledError   the sender no longer waits for the answer

Anything else that ends a request is a fault of ours, and is answered as an internal error.
"""

from __future__ import annotations


class EngineError(Exception):
    """An expected end of a request; its text is for the sender."""


class RequestError(EngineError):
    """The audio or an option is wrong; the text names it and says what is allowed."""


class OverloadedError(EngineError):
    """Nothing was queued, because the lane holds all the requests that it may."""


class RequestCancelledError(EngineError):
    """The sender had gone before the request's turn came, so no work was done for it."""
