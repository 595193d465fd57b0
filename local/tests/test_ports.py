"""Ports are checked before anything starts."""

import os
import socket
from collections.abc import Iterator

import pytest
from whisperline_local.errors import PortTaken
from whisperline_local.ports import PortUse, check_ports, is_free


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_named_with_its_holder_and_its_setting(taken_port: int) -> None:
    """The error names the taken port, the process that holds it, and the setting that moves it."""
    with pytest.raises(PortTaken) as caught:
        check_ports([PortUse("kafka", taken_port, "kafka_port")])
    message = str(caught.value)
    assert str(taken_port) in message
    assert f"(process {os.getpid()})" in message
    assert "WHISPERLINE_LOCAL_KAFKA_PORT" in message


def test_every_taken_port_is_reported_at_once(taken_port: int) -> None:
    """One error names every taken port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        uses = [PortUse("kafka", taken_port, "kafka_port"), PortUse("triton", other.getsockname()[1], "triton_port")]
        with pytest.raises(PortTaken) as caught:
            check_ports(uses)
    assert len(str(caught.value).splitlines()) == 2


def test_a_port_given_twice_is_refused(taken_port: int) -> None:
    """Two services cannot be given the same port."""
    free = taken_port
    with pytest.raises(PortTaken, match="both one and other"):
        check_ports([PortUse("one", free, "one_port"), PortUse("other", free, "other_port")])


def test_a_port_is_free_after_its_connections_have_closed() -> None:
    """Connections of an earlier run that linger in TIME_WAIT do not hold a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # the server closes first: its side is the one that lingers
    assert is_free("127.0.0.1", port)
    check_ports([PortUse("kafka", port, "kafka_port")])
