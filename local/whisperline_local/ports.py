"""Whether the stack's ports are free, and who has those that are not."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from whisperline_local.errors import PortTaken
from whisperline_local.settings import ENV_PREFIX, HOST


@dataclass(frozen=True)
class PortUse:
    """A port that a service will listen on; `setting` is the field of `LocalSettings` that moves it."""

    service: str
    port: int
    setting: str
    host: str = HOST


def check_ports(uses: Iterable[PortUse]) -> None:
    """Raise `PortTaken`, naming every port that two services want or that is in use on this machine."""
    wanted: dict[int, PortUse] = {}
    problems = []
    for use in uses:
        other = wanted.setdefault(use.port, use)
        if other is not use:
            problems.append(f"Port {use.port} is given to both {other.service} and {use.service}. {_advice(use)}")
        elif not is_free(use.host, use.port):
            problems.append(f"Port {use.port}, wanted by {use.service}, is in use{_holder(use.port)}. {_advice(use)}")
    if problems:
        raise PortTaken("\n".join(problems))


def is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # As servers do: connections of an earlier run that linger in TIME_WAIT are no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def _advice(use: PortUse) -> str:
    return f"Set {ENV_PREFIX}{use.setting.upper()} to another, or move all with {ENV_PREFIX}PORT_OFFSET."


def _holder(port: int) -> str:
    """Name the process that listens on the port, as far as this user may know it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            return f" by {_name(connection.pid)} (process {connection.pid})"
    return ""


def _name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "a process"
