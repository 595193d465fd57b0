"""The tasks of one connection: what one of them raises is told once, and none outlives the connection."""

import asyncio
from collections.abc import Callable, Coroutine


class Tasks:
    """Runs tasks until `stop`; `failed` is called with what one raises."""

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self._name = name
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` beside the others."""
        task = asyncio.create_task(self._guarded(work), name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel them all; return when they are gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # what it means is for `failed` to say
            self._failed(error)
