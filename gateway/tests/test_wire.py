"""The end of a connection, to a client that takes it and to one that hardly reads."""

import asyncio
from typing import Any

import pytest
from whisperline_gateway import messages
from whisperline_gateway.outbox import Outbox
from whisperline_gateway.wire import ABORT, Wire

TIMEOUT_S = 0.2


class Client:
    """A socket whose client takes a message every `pause_s`."""

    def __init__(self, pause_s: float, takes_close: bool = True) -> None:
        self.taken = 0
        self.aborted = False
        self.closed_with: int | None = None
        self.scope = {"extensions": {ABORT: self._abort}}
        self._pause_s = pause_s
        self._takes_close = takes_close

    async def send_text(self, _: str) -> None:
        await asyncio.sleep(self._pause_s)
        self.taken += 1

    async def close(self, code: int, _: str) -> None:
        if not self._takes_close:
            await asyncio.Event().wait()
        self.closed_with = code

    def _abort(self) -> None:
        self.aborted = True


async def say_goodbye(client: Any, count: int) -> None:
    outbox = Outbox()
    wire = Wire(client, outbox, TIMEOUT_S)
    for _ in range(count):
        outbox.put(messages.unknown_type("{}"))

    async def write() -> bool:
        await wire.write()
        return True

    await wire.say_goodbye(asyncio.create_task(write()), None)


async def test_what_is_left_is_written_before_the_close() -> None:
    """A client that reads receives all, then the close frame."""
    client = Client(pause_s=0)
    await say_goodbye(client, 100)
    assert (client.taken, client.closed_with, client.aborted) == (100, 1000, False)


@pytest.mark.parametrize("client", [Client(pause_s=TIMEOUT_S / 2), Client(pause_s=0, takes_close=False)])
async def test_a_client_that_takes_too_long_is_dropped(client: Client) -> None:
    """Neither one that takes each message just in time, nor one that does not take the close, is waited for."""
    await say_goodbye(client, 10)
    assert (client.closed_with, client.aborted) == (None, True)
