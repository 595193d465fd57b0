"""Questions to a service: are you ready? Each answers within `TIMEOUT_S`, and False for every failure."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from whisperline_local.settings import HOST

TIMEOUT_S = 2.0

# ApiVersions, version 0, correlation 1, no client id: https://kafka.apache.org/protocol#The_Messages_ApiVersions
_API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, 1, -1)


async def http_ok(port: int, path: str) -> bool:
    """Tell whether a GET of `path` on a local port answers 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT_S), _connection(port) as (reader, writer):
            writer.write(request.encode())
            status_line = await reader.readline()
    except (OSError, TimeoutError):
        return False
    return status_line.split()[1:2] == [b"200"]


async def kafka_ok(port: int) -> bool:
    """Tell whether a broker processes requests on a local port (it accepts connections earlier than that)."""
    try:
        async with asyncio.timeout(TIMEOUT_S), _connection(port) as (reader, writer):
            writer.write(_API_VERSIONS_REQUEST)
            _, correlation_id, error_code = struct.unpack(">iih", await reader.readexactly(10))
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return (correlation_id, error_code) == (1, 0)


async def postgres_ok(url: str) -> bool:
    """Tell whether a database accepts connections."""
    try:
        async with asyncio.timeout(TIMEOUT_S), await psycopg.AsyncConnection.connect(url):
            return True
    except (psycopg.Error, OSError, TimeoutError):
        return False


@asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
