"""Buffer the audio that the gateway has not acknowledged yet, and remember when the client got it. No I/O."""

from collections import deque

from whisperline_client.errors import AudioGone

MAX_TIMED_PARTS = 4_096  # at 50 ms or more each, these cover at least the last three minutes
MIN_PART_S = 0.05


class UnackedAudio:
    """A buffer of the stream's bytes that were appended and are not acknowledged yet.

    A position counts samples per channel from the start of the session. Callers test `has_space` before they append:
    `append` itself does not enforce `limit_bytes`.
    """

    def __init__(self, frame_bytes: int, limit_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._limit_bytes = limit_bytes
        self._data = bytearray()  # may end in the middle of a sample, whose other bytes are still to come
        self.start = 0  # position of the first byte that is kept

    @property
    def end(self) -> int:
        """The position after the last whole sample."""
        return self.start + len(self._data) // self._frame_bytes

    @property
    def has_space(self) -> bool:
        """True if more audio may be appended."""
        return len(self._data) < self._limit_bytes

    def append(self, data: bytes) -> None:
        """Add the bytes that follow; they may end in the middle of a sample."""
        self._data += data

    def acknowledge(self, position: int) -> None:
        """Forget the audio before `position`."""
        samples = max(0, min(position, self.end) - self.start)
        del self._data[: samples * self._frame_bytes]
        self.start += samples

    def read(self, position: int, limit_bytes: int) -> bytes:
        """Return whole samples from `position` on, at most `limit_bytes`. Raises `AudioGone` outside the buffer."""
        if not self.start <= position <= self.end:
            raise AudioGone(f"the gateway asks for audio from sample {position}; kept are {self.start} to {self.end}")
        samples = min(self.end - position, limit_bytes // self._frame_bytes)
        first = (position - self.start) * self._frame_bytes
        return bytes(self._data[first : first + samples * self._frame_bytes])


class CaptureTimes:
    """Remembers when the audio up to each position was appended: for live audio, when it was spoken."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._parts: deque[tuple[int, float]] = deque(maxlen=MAX_TIMED_PARTS)  # (end position, time in s)

    def record(self, end: int, now_s: float) -> None:
        """Remember that the audio before position `end` was complete at `now_s`."""
        parts = self._parts
        # Small chunks share one entry, so that the entries reach back far enough.
        if len(parts) > 1 and end - parts[-2][0] < MIN_PART_S * self._sample_rate:
            parts[-1] = (end, now_s)
        else:
            parts.append((end, now_s))

    def delay_s(self, time_ms: int, now_s: float) -> float | None:
        """Return the seconds from when the audio at `time_ms` was appended to `now_s`; None if that is not known."""
        position = time_ms * self._sample_rate // 1000
        captured_s = next((when for end, when in self._parts if end >= position), None)
        return None if captured_s is None else now_s - captured_s
