"""Metrics count finals by outcome, and the consumer says why it is not ready."""

import time

from prometheus_client import REGISTRY
from pydantic import SecretStr
from whisperline_contracts import Final, SegmentEnd
from whisperline_persistence import Store, metrics
from whisperline_persistence.consumer import Consumer
from whisperline_persistence.settings import Settings
from whisperline_runtime.process import Stop

URL = "postgresql://nobody@127.0.0.1:1/none"


async def test_a_consumer_names_the_first_reason_why_it_is_not_ready() -> None:
    """A consumer that is not ready names its missing partitions first, then its database."""
    async with Store.open(URL) as store:
        consumer = Consumer(Settings(database_url=SecretStr(URL)), store, Stop())
        assert consumer.problem() == "no partitions of the log are assigned yet"
        await consumer.on_partitions_assigned([])
        assert consumer.problem() == "the database does not answer"
        consumer.database_up = True
        assert consumer.problem() is None


def test_finals_are_counted_by_what_became_of_them() -> None:
    """Finals that were stored before are counted separately from new ones."""
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
