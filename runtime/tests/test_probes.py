"""A process answers probes and Prometheus."""

import urllib.error
import urllib.request

import pytest
from prometheus_client import Histogram
from whisperline_runtime import probes
from whisperline_runtime.probes import Probes, serve_probes

DELAY = Histogram("whisperline_runtime_test_delay_seconds", "For this test")


def test_a_process_that_is_ready_is_ready_and_live() -> None:
    """Both probes pass for a process that is ready."""
    process = Probes(lambda: None)
    assert [process.answer(path).status for path in ("/health/live", "/health/ready")] == [200, 200]


def test_a_process_that_is_not_ready_says_why_and_is_live() -> None:
    """A process that is not ready is live and gives the reason: it gets no traffic, but is not restarted."""
    process = Probes(lambda: "the database does not answer")
    assert process.answer("/health/live").status == 200
    answer = process.answer("/health/ready")
    assert (answer.status, answer.body) == (503, b"the database does not answer\n")


def test_a_loop_that_does_not_turn_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both probes fail when the watchdog's last beat is too old."""
    monkeypatch.setattr(probes, "DEAD_AFTER_S", -1.0)
    process = Probes(lambda: None)
    assert {process.answer(path).status for path in ("/health/live", "/health/ready")} == {503}


def test_metrics_come_with_exemplars_for_those_who_ask_for_openmetrics() -> None:
    """Metrics come as OpenMetrics with exemplars if the Accept header asks for it, else as text."""
    DELAY.observe(0.2, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    process = Probes(lambda: None)
    openmetrics = process.answer("/metrics", "application/openmetrics-text; version=1.0.0")
    assert b'# {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.2' in openmetrics.body
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert process.answer("/metrics").content_type.startswith("text/plain")


def get(port: int, path: str) -> tuple[int, bytes]:
    """Send a GET, and block the event loop until the answer has come."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def test_they_are_served_from_a_thread() -> None:
    """Probes are answered even while this test blocks the event loop."""
    async with serve_probes(Probes(lambda: "starting"), "127.0.0.1", 0) as port:
        assert get(port, "/health/live?verbose=1") == (200, b"ok\n")
        assert get(port, "/health/ready") == (503, b"starting\n")
        assert get(port, "/")[0] == 404
