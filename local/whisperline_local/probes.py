"""Check if a service on this machine is ready. A probe takes at most about `TIMEOUT_S`; any failure is False."""

import asyncio
from http.client import HTTPConnection, HTTPException

import psycopg
from aiokafka.errors import KafkaError
from whisperline_runtime.broker import Broker
from whisperline_runtime.errors import BrokerRefusedError

from whisperline_local.settings import HOST

TIMEOUT_S = 2.0


async def http_ok(port: int, path: str) -> bool:
    """Return True if a GET of `path` on a local port answers with 200."""

    def status() -> int:
        # Not urllib.request, which would use a proxy that the environment may name.
        connection = HTTPConnection(HOST, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    try:
        return await asyncio.to_thread(status) == 200
    except (OSError, HTTPException):
        return False


async def kafka_ok(bootstrap: str) -> bool:
    """Return True if a broker answers requests. It accepts connections some time before it can answer."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await Broker(bootstrap).reach()
    except (KafkaError, BrokerRefusedError, TimeoutError):
        return False
    return True


async def postgres_ok(url: str) -> bool:
    """Return True if a database accepts connections."""
    try:
        async with asyncio.timeout(TIMEOUT_S), await psycopg.AsyncConnection.connect(url):
            return True
    except (psycopg.Error, OSError, TimeoutError):
        return False
