"""The low watermark of a partition: the oldest offset that an unfinished segment still needs.

It is what the transcriber commits. Whoever takes the partition over replays from there.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class _Needs:
    audio: deque[tuple[int, int]] = field(default_factory=deque)  # offset, and where its audio ends
    held: set[int] = field(default_factory=set)

    def oldest(self) -> int | None:
        first = [self.audio[0][0]] if self.audio else []
        return min([*first, *self.held], default=None)


class Watermark:
    """Which offsets of one partition the sessions in it still need. `position` is the next offset to be read."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._needs: dict[str, _Needs] = {}

    def read(self, offset: int) -> None:
        """Note that the record at `offset` was read."""
        self.position = max(self.position, offset + 1)

    def audio(self, session_id: str, offset: int, end: int) -> None:
        """Note that the session needs the record at `offset` until it is done up to `end` (source samples)."""
        self._needs.setdefault(session_id, _Needs()).audio.append((offset, end))

    def hold(self, session_id: str, offset: int) -> None:
        """Note that the session needs the record at `offset` until it is released."""
        self._needs.setdefault(session_id, _Needs()).held.add(offset)

    def release(self, session_id: str, offset: int) -> None:
        """Undo `hold`."""
        if session_id in self._needs:
            self._needs[session_id].held.discard(offset)

    def done(self, session_id: str, position: int) -> None:
        """Note that no audio of the session before `position` (source samples) is needed any more."""
        needs = self._needs.get(session_id)
        while needs and needs.audio and needs.audio[0][1] <= position:
            needs.audio.popleft()

    def forget(self, session_id: str) -> None:
        """Note that the session needs nothing any more."""
        self._needs.pop(session_id, None)

    def low(self) -> int:
        """Return the low watermark."""
        oldest = (needs.oldest() for needs in self._needs.values())
        return min((offset for offset in oldest if offset is not None), default=self.position)
