"""Write structured logs: JSON for machines, aligned text on a terminal.

Modules log with the standard library (`log = logging.getLogger(__name__)`). Every line also carries the values that
`bind` has set (session, connection, partition) and, while a span is recorded, the ids of its trace. Never log spoken
text, audio or tokens: log ids, counts and times.
"""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

LogFormat = Literal["auto", "json", "text"]

# Only our own packages log below WARNING. At DEBUG, libraries would log frames, queries and records,
# which contain users' words.
OUR_LOGGERS = (
    "whisperline_runtime",
    "whisperline_gateway",
    "whisperline_transcriber",
    "whisperline_persistence",
)


def configure(service: str, level: str, log_format: LogFormat) -> None:
    """Send all logs to standard error. Every line carries `service`."""
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    if as_text:
        # Plain tracebacks: pretty ones show local variables, among them audio and text.
        plain = structlog.dev.plain_traceback
        renderers: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        ]
    else:

        def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
            event["service"] = service
            return event

        renderers = [add_service, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)


def bind(**values: str | int) -> AbstractContextManager[None]:
    """Add `values` to every line logged in the body, by this task and by the tasks that it starts there."""
    return structlog.contextvars.bound_contextvars(**values)


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event
