"""Check that the stack's ports are free before anything starts, and name the processes that hold taken ones."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from whisperline_local.errors import PortTaken
from whisperline_local.settings import ENV_PREFIX, HOST


@dataclass(frozen=True)
class PortUse:
    """A port that a service will listen on. `setting` is the field of `LocalSettings` that moves it."""

    service: str
    port: int
    setting: str
    host: str = HOST


def check_ports(uses: Iterable[PortUse]) -> None:
    """Raise `PortTaken`, naming every port that two services want or that is in use on this machine."""
    wanted: dict[int, PortUse] = {}
    problems = []
    for use in uses:
        advice = f"Set {ENV_PREFIX}{use.setting.upper()} to another, or move all with {ENV_PREFIX}PORT_OFFSET."
        other = wanted.setdefault(use.port, use)
        if other is not use:
            problems.append(f"Port {use.port} is given to both {other.service} and {use.service}. {advice}")
        elif not is_free(use.host, use.port):
            problems.append(f"Port {use.port}, wanted by {use.service}, is in use{holder(use.port)}. {advice}")
    if problems:
        raise PortTaken("\n".join(problems))


def is_free(host: str, port: int) -> bool:
    """Return True if a server could listen on this port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # Servers set this, too: a connection of an earlier run that lingers in TIME_WAIT does not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Return " by NAME (process ID)" for the process that listens on a port, or "" if this user may not know it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            try:
                name = psutil.Process(connection.pid).name()
            except psutil.Error:
                name = "a process"
            return f" by {name} (process {connection.pid})"
    return ""
