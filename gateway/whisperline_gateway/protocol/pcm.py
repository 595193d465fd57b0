"""Raw 16-bit PCM as it comes from a socket: in frames of any size, cut into whole samples."""

from dataclasses import dataclass
from typing import Protocol

from whisperline_contracts.audio import BYTES_PER_SAMPLE


@dataclass(frozen=True)
class PcmFormat:
    """16-bit little-endian PCM, interleaved."""

    sample_rate: int  # Hz
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Return the size of one sample of all channels."""
        return BYTES_PER_SAMPLE * self.channels

    @property
    def bytes_per_s(self) -> int:
        """Return the size of one second."""
        return self.sample_rate * self.frame_bytes


class AudioParser(Protocol):
    """Turns the bytes that a client sends into whole samples of PCM."""

    @property
    def format(self) -> PcmFormat | None:
        """Return the format of the samples, or None while it is not known."""

    def parse(self, data: bytes) -> bytes:
        """Return the whole samples so far; the rest waits for the next call. Raises `ClientError`."""

    def finish(self) -> None:
        """End the stream. Raises `ClientError` if it cannot end here."""


class RawParser:
    """Parses audio without a container. The bytes of an unfinished sample wait for the next frame."""

    def __init__(self, pcm: PcmFormat) -> None:
        self.format: PcmFormat | None = pcm
        self._frame_bytes = pcm.frame_bytes
        self._rest = b""

    def parse(self, data: bytes) -> bytes:
        """Return the whole samples so far."""
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        return data[:whole]

    def finish(self) -> None:
        """Drop the bytes of an unfinished sample, if there are any."""
        self._rest = b""
