"""Finals in their order, each once, from two sources: the live events, and the database for what was missed."""

from whisperline_contracts import Final

MAX_HELD = 64  # live finals that wait for earlier ones; those beyond are read from the database in their turn


class FinalOrder:
    """Decides which finals may be told to the client. `expected` is the next one; those below `end` exist."""

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self.end = expected
        self._held: dict[int, Final] = {}

    @property
    def gap(self) -> tuple[int, int] | None:
        """The finals [first, end) that exist and are not here; None if the next one is still to come."""
        if self.expected >= self.end:
            return None
        return self.expected, min(self._held, default=self.end)

    def announce(self, end: int) -> None:
        """Note that all finals below `end` exist."""
        self.end = max(self.end, end)

    def offer(self, final: Final) -> list[Final]:
        """Take a final, seen before or not; return those that may be told now, in order."""
        index = final.segment_index
        self.announce(index + 1)
        if index == self.expected or (index > self.expected and len(self._held) < MAX_HELD):
            self._held[index] = final
        ready = []
        while self.expected in self._held:
            ready.append(self._held.pop(self.expected))
            self.expected += 1
        return ready
