"""Settings of the tests' stacks: each has ports of its own, so that they can run side by side."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from whisperline_local import LocalSettings, Stack

CHECKOUT = Path(__file__).parents[1]
CACHE = CHECKOUT / ".state" / "cache"  # downloads and exported models, shared with `make up`

# Added to the ports that `make up` uses (5532 to 9193), so that tests can run beside it and beside each other. From
# 32768 on, Linux gives ports to outgoing connections, which might take one from a stack that is about to start.
PORT_OFFSETS = {
    "tests": 1_000,
    "tests with noise": 2_000,
    "local": 3_000,
    "bench latency": 4_000,
    "traces": 5_000,
    "charts, rights": 9_400,
    "persistence": 11_000,
    "gateway": 12_000,
    "transcriber": 14_000,
    "topics": 17_000,
    "charts, dead letters": 18_000,
    "bench footprint": 19_000,
    "bench trace": 20_000,
    "rollout": 21_000,
    "bench serving": 22_000,
    "probe": 23_000,
}


def local_settings(
    state: Path,
    *,
    name: str = "tests",
    gateways: int = 2,
    transcribers: int = 1,
    model_repository: Path | None = None,
    service_env: Mapping[str, Mapping[str, str]] | None = None,
) -> LocalSettings:
    """Return the settings of the stack with this name in `PORT_OFFSETS`, with its state in the given folder."""
    return LocalSettings(
        state_dir=state,
        cache_dir=CACHE,
        port_offset=PORT_OFFSETS[name],
        gateways=gateways,
        transcribers=transcribers,
        model_repository=model_repository,
        service_env=service_env or {},
    )


@asynccontextmanager
async def kafka_and_database(name: str, state: Path) -> AsyncIterator[Stack]:
    """Run Kafka with its topics and PostgreSQL with an empty, migrated database."""
    async with Stack(local_settings(state, name=name), services=("kafka", "migrate")) as running:
        yield running
