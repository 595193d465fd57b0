from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stamina
from whisperline_contracts import AudioChunk, AudioKind, Progress, StreamOptions
from whisperline_transcriber.settings import Settings


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


@pytest.fixture(scope="session")
def chunk() -> Callable[..., AudioChunk]:
    """Makes a record of session "s" at 16 kHz."""

    def make(
        kind: AudioKind = AudioKind.AUDIO,
        position: int = 0,
        data: bytes = b"",
        *,
        session_id: str = "s",
        connection_id: str = "c",
        traceparent: str | None = None,
        options: StreamOptions | None = None,
    ) -> AudioChunk:
        return AudioChunk(
            session_id=session_id,
            connection_id=connection_id,
            client_id="u",
            kind=kind,
            sequence=0,
            position=position,
            sample_rate=16_000,
            reply_partition=0,
            options=options or StreamOptions(),
            traceparent=traceparent,
            data=data,
        )

    return make


@pytest.fixture(scope="session")
def settings() -> Callable[..., Settings]:
    """Makes settings; the voice-activity model is never loaded from them."""

    def make(**values: float) -> Settings:
        return Settings.model_validate({"vad_model": Path(__file__), **values})

    return make


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Make retries follow each other without delay."""
    with stamina.set_testing(True, attempts=1_000):
        yield
