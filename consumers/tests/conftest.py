from collections.abc import Callable

import pytest
from whisperline_contracts import Progress, StreamOptions


@pytest.fixture(scope="session")
def progress() -> Callable[..., Progress]:
    """Makes the record of a session of 16 kHz that another process had, and has decided up to `base`."""

    def make(base: int = 0, *, session_id: str = "s", owner: str = "before") -> Progress:
        return Progress(
            session_id=session_id,
            connection_id="c",
            client_id="u",
            reply_partition=0,
            sample_rate=16_000,
            channels=1,
            options=StreamOptions(),
            revision=1,
            owner=owner,
            attached_at=0,
            base=base,
            next_segment_index=0,
        )

    return make
