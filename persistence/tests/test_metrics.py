"""The probes tell whether the process lives and is ready, and the metrics what it did."""

import asyncio
import time

import httpx
from prometheus_client import REGISTRY
from whisperline_contracts import Final, SegmentEnd
from whisperline_persistence import metrics
from whisperline_persistence.metrics import Health


def test_health_names_the_first_problem() -> None:
    """A process lives while its event loop turns; it is ready when it has its partitions and its database too."""
    health = Health(assigned=True, database_up=True, beat_s=time.monotonic())
    assert (health.problem("/live"), health.problem("/ready")) == (None, None)
    health.database_answered(False)
    assert (health.problem("/live"), health.problem("/ready")) == (None, "the database does not answer")
    health.assigned = False
    assert health.problem("/ready") == "no partitions of the log are assigned yet"
    health.beat_s -= 60
    assert health.problem("/live") == health.problem("/ready") == "the event loop does not turn"


async def test_probes_answer_over_http() -> None:
    """Each probe answers 200 or 503 and says why; metrics are Prometheus text; other paths are not found."""
    health = Health()
    async with metrics.serve(health, "127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        await asyncio.sleep(0)  # lets the first beat happen
        assert (await client.get(f"{base}/live")).status_code == 200
        ready = await client.get(f"{base}/ready")
        assert (ready.status_code, ready.text) == (503, "no partitions of the log are assigned yet\n")
        health.assigned = True
        health.database_answered(True)
        assert (await client.get(f"{base}/ready")).status_code == 200
        assert "whisperline_persistence_database_up 1.0" in (await client.get(f"{base}/metrics")).text
        assert (await client.get(f"{base}/")).status_code == 404


async def test_probes_answer_while_the_event_loop_is_stuck() -> None:
    """A process whose event loop does not turn says so itself."""
    health = Health()
    async with metrics.serve(health, "127.0.0.1", 0) as port:
        await asyncio.sleep(0)
        health.beat_s -= 60
        answer = httpx.get(f"http://127.0.0.1:{port}/live")  # noqa: ASYNC210 - the event loop is to be stuck
    assert (answer.status_code, answer.text) == (503, "the event loop does not turn\n")


def test_finals_are_counted_by_what_became_of_them() -> None:
    """Finals that were stored before are counted apart from new ones."""
    final = Final(
        session_id="s",
        connection_id="c",
        client_id="me",
        time_ms=int(time.time() * 1000),
        segment_index=0,
        start_ms=0,
        end_ms=1,
        text="",
        words=(),
        language="en",
        confidence=1,
        reason=SegmentEnd.END,
        model="tiny.en",
        model_version="1",
        position=1,
    )
    before = counted()
    metrics.count_finals([final] * 3, new=1)
    assert counted() == (before[0] + 1, before[1] + 2)


def counted() -> tuple[float, float]:
    name = "whisperline_persistence_finals_total"
    stored, known = (REGISTRY.get_sample_value(name, {"outcome": of}) for of in ("stored", "already_stored"))
    return stored or 0.0, known or 0.0
