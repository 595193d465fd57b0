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
        """The bytes of one sample of all channels."""
        return BYTES_PER_SAMPLE * self.channels

    @property
    def bytes_per_s(self) -> int:
        """The bytes of one second."""
        return self.sample_rate * self.frame_bytes


class Decoder(Protocol):
    """Turns what a client sends into PCM."""

    @property
    def format(self) -> PcmFormat | None:
        """The format of what `feed` returns; None while it is not known."""

    def feed(self, data: bytes) -> bytes:
        """Return whole samples; the rest waits for the next call. Raises `ClientError` DATA-0000."""

    def finish(self) -> None:
        """Tell that no more will come. Raises `ClientError` DATA-0000 if that cannot be the end."""


class RawDecoder:
    """Audio without a container. The bytes of an unfinished sample wait for the next frame."""

    def __init__(self, pcm: PcmFormat) -> None:
        self.format: PcmFormat | None = pcm
        self._frame_bytes = pcm.frame_bytes
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return all whole samples so far."""
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        return data[:whole]

    def finish(self) -> None:
        """Drop the bytes of an unfinished sample, if any."""
        self._rest = b""
