"""The real Kafka and PostgreSQL that the integration tests share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from whisperline_local import LocalSettings, Stack
from whisperline_persistence import Store

CHECKOUT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka and PostgreSQL, with an empty, migrated database."""
    state = tmp_path_factory.mktemp("stack")
    settings = LocalSettings(state_dir=state, cache_dir=CHECKOUT / ".state" / "cache", port_offset=11_000)
    async with Stack(settings, services=("kafka", "migrate")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(stack: Stack) -> AsyncIterator[Store]:
    """A store on the stack's database."""
    async with Store.open(stack.database_url) as opened:
        yield opened


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Wait until a condition holds."""

    async def wait(condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110 - what another process does sets no event here
                await asyncio.sleep(0.05)

    return wait
