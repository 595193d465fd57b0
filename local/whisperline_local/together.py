"""Work that is done at the same time and ends together."""

import asyncio
from collections.abc import Coroutine


async def together(*parts: Coroutine[object, object, object]) -> None:
    """Run all parts at the same time; when one fails, cancel the others, wait for them, and raise its error."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
