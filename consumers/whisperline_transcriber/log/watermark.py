"""The low watermark of a partition: the oldest offset that an undecided segment still needs.

The transcriber commits it, and the next owner of the partition replays from there.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class _Needs:
    # Of each record, its offset and the position at which its audio ends.
    audio: deque[tuple[int, int]] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)  # offsets of control records


class Watermark:
    """The offsets of one partition that its sessions still need. `next_offset` is the next offset to read.

    Positions are samples at the session's own rate.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._needs: dict[str, _Needs] = {}

    def note_read(self, offset: int) -> None:
        """Note that the record at `offset` was read."""
        self.next_offset = max(self.next_offset, offset + 1)

    def need_audio(self, session_id: str, offset: int, end: int) -> None:
        """Note that the session needs the record at `offset` until its audio is decided up to position `end`."""
        self._needs.setdefault(session_id, _Needs()).audio.append((offset, end))

    def hold(self, session_id: str, offset: int) -> None:
        """Note that the session needs the record at `offset` until `release` is called for it."""
        self._needs.setdefault(session_id, _Needs()).held.add(offset)

    def release(self, session_id: str, offset: int) -> None:
        """Release an offset that was held."""
        if session_id in self._needs:
            self._needs[session_id].held.discard(offset)

    def release_audio(self, session_id: str, position: int) -> None:
        """Note that the session no longer needs audio before `position`."""
        needs = self._needs.get(session_id)
        while needs and needs.audio and needs.audio[0][1] <= position:
            needs.audio.popleft()

    def forget(self, session_id: str) -> None:
        """Note that the session no longer needs any record."""
        self._needs.pop(session_id, None)

    def low(self) -> int:
        """Return the low watermark: the oldest offset that any session needs, else `next_offset`."""
        oldest = self.next_offset
        for needs in self._needs.values():
            if needs.audio:  # in the order of the log, so the first is the oldest
                oldest = min(oldest, needs.audio[0][0])
            oldest = min(oldest, min(needs.held, default=oldest))
        return oldest
