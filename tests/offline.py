"""Serve a repository with Triton in a network namespace without any other host; a test runs this script there.

`python offline.py REPOSITORY STATE`
"""

import asyncio
import fcntl
import socket
import struct
import sys
from pathlib import Path

from stacks import local_settings
from whisperline_local import Stack
from whisperline_models.rollout import Repository, Server

SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41


def loopback_up() -> None:
    """Bring up the loopback, the only interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))


def no_network() -> None:
    """Fail if there is another interface."""
    interfaces = [name for _, name in socket.if_nameindex()]
    assert interfaces == ["lo"], interfaces


async def serve(repository: Path, state: Path) -> None:
    """Start Triton and check that the default version answers."""
    settings = local_settings(state, name="rollout", model_repository=repository)
    async with Stack(settings, ["triton"]):
        number = Repository(repository).routing().default
        with Server(f"127.0.0.1:{settings.ports.triton_grpc}") as server:
            seconds = await asyncio.to_thread(server.check, number)
    sys.stdout.write(f"version {number} answers in {seconds:.2f} s\n")


if __name__ == "__main__":
    no_network()
    loopback_up()
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
