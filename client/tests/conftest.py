"""The gateway that the client's tests stream to, and its faults."""

import pytest
from loopback import Faults, LoopbackGateway


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the client send many small frames, so that a lost connection interrupts the audio in more places."""
    monkeypatch.setattr("whisperline_client.client.MAX_FRAME_BYTES", 1000)


@pytest.fixture
def faults() -> Faults:
    """The faults of the gateway: none, unless the test sets some."""
    return Faults()


@pytest.fixture
def gateway(faults: Faults) -> LoopbackGateway:
    """A gateway with a log of its own."""
    return LoopbackGateway({}, faults)
