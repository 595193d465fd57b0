"""The fields that log lines carry, and the contents that they never show."""

import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from whisperline_runtime import logs

log = logging.getLogger("whisperline_runtime.test")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Restore the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_of_json_names_service_level_logger_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line has the fields that log stores index."""
    logs.configure("whisperline-example", "INFO", "json")
    log.info("listening on port %d", 8080)
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "listening on port 8080",
        "level": "info",
        "logger": "whisperline_runtime.test",
        "service": "whisperline-example",
    }


def test_a_line_carries_what_was_bound_and_the_span(capsys: pytest.CaptureFixture[str]) -> None:
    """A line carries the bound values and the ids of the current span, which lead to related lines and traces."""
    logs.configure("whisperline-example", "INFO", "json")
    with (
        logs.bind(session_id="s-1", partition=3),
        TracerProvider().get_tracer("test").start_as_current_span("decode") as span,
    ):
        log.info("decided")
    log.info("outside")
    inside, outside = lines(capsys)
    assert inside["session_id"] == "s-1"
    assert inside["partition"] == 3
    assert inside["trace_id"] == format(span.get_span_context().trace_id, "032x")
    assert {"session_id", "trace_id"}.isdisjoint(outside)


def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """Tracebacks do not show local variables, which may hold audio and text."""
    logs.configure("whisperline-example", "INFO", "json")
    spoken = "ask not"
    try:
        raise ValueError(len(spoken))
    except ValueError:
        log.exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: 7" in str(line["exception"])
    assert spoken not in str(line["exception"]).replace('spoken = "ask not"', "")


@pytest.mark.parametrize("library", ["websockets.server", "aiokafka.conn", "uvicorn.error", "httpx"])
def test_debug_is_for_our_own_packages(capsys: pytest.CaptureFixture[str], library: str) -> None:
    """Libraries do not log at DEBUG, where they would log frames and records with users' words."""
    logs.configure("whisperline-example", "DEBUG", "json")
    logging.getLogger(library).debug("TEXT 'ask not'")
    log.debug("ours")
    assert [line["event"] for line in lines(capsys)] == ["ours"]


def test_on_a_terminal_a_line_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal a line is text: the message first, the other fields after it."""
    logs.configure("whisperline-example", "INFO", "text")
    with logs.bind(session_id="s-1"):
        log.warning("slow")
    line = capsys.readouterr().err
    assert "slow" in line
    assert "session_id=s-1" in line
