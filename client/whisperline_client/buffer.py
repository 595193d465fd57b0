"""The audio that the gateway has not acknowledged yet, and when each part of it was handed in. No I/O."""

from collections import deque

from whisperline_client.errors import AudioGone

_TIMED_PARTS = 4_096  # of 50 ms and more: the last three minutes at least
_MIN_PART_S = 0.05


class UnackedAudio:
    """A window on the stream's bytes: what was appended, less what was acknowledged.

    Positions count samples a channel from the start of the session. `append` beyond `limit_bytes` is the
    caller's mistake: it asks `has_space` first.
    """

    def __init__(self, frame_bytes: int, limit_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self._carry = b""
        self.start = 0  # position of the first byte that is kept

    @property
    def end(self) -> int:
        """The position after the last whole sample."""
        return self.start + len(self._data) // self._frame_bytes

    @property
    def has_space(self) -> bool:
        """Whether more audio may be appended."""
        return len(self._data) < self._limit_bytes

    def append(self, data: bytes) -> None:
        """Add the bytes that follow; those of an unfinished sample wait for their other half."""
        whole = self._carry + data
        cut = len(whole) - len(whole) % self._frame_bytes
        self._data += whole[:cut]
        self._carry = whole[cut:]

    def acknowledge(self, position: int) -> None:
        """Forget what lies before `position`."""
        samples = max(0, min(position, self.end) - self.start)
        del self._data[: samples * self._frame_bytes]
        self.start += samples

    def read(self, position: int, limit_bytes: int) -> bytes:
        """Return whole samples from `position`, at most `limit_bytes`. Raises `AudioGone` outside the window."""
        if not self.start <= position <= self.end:
            raise AudioGone(f"the gateway asks for audio from sample {position}; here are {self.start} to {self.end}")
        first = (position - self.start) * self._frame_bytes
        return bytes(self._data[first : first + limit_bytes - limit_bytes % self._frame_bytes])


class HandInTimes:
    """When the audio up to a position was handed in: the moment its last word was spoken, for live audio."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._parts: deque[tuple[int, float]] = deque(maxlen=_TIMED_PARTS)

    def note(self, end: int, now_s: float) -> None:
        """Note that the audio before position `end` is complete at `now_s`."""
        parts = self._parts
        if len(parts) > 1 and end - parts[-2][0] < _MIN_PART_S * self._sample_rate:
            parts[-1] = (end, now_s)
        else:
            parts.append((end, now_s))

    def delay_s(self, time_ms: int, now_s: float) -> float | None:
        """Return the seconds between the hand-in of the audio at `time_ms` and `now_s`; None if it is not known."""
        position = time_ms * self._sample_rate // 1000
        noted = next((when for end, when in self._parts if end >= position), None)
        return None if noted is None else now_s - noted
