"""Which prefix of a connection's audio is durable, when its records are stored in any order."""

from collections import deque


class AckTracker:
    """Follows the records of one connection; `position` (samples) is the end of the durable prefix."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._first_ticket = 0
        self._unsettled: deque[tuple[int, bool]] = deque()  # where the record ends, whether it is stored

    def __len__(self) -> int:
        return len(self._unsettled)

    def rebase(self, position: int) -> None:
        """Let the audio begin at `position`. Only before the first audio, when records without any may be under way."""
        self.position = position

    def sent(self, end: int) -> int:
        """Note a record whose audio ends at `end`; return its ticket."""
        self._unsettled.append((end, False))
        return self._first_ticket + len(self._unsettled) - 1

    def stored(self, ticket: int) -> bool:
        """Note that a record is durable; return whether `position` has moved."""
        end, _ = self._unsettled[ticket - self._first_ticket]
        self._unsettled[ticket - self._first_ticket] = (end, True)
        before = self.position
        while self._unsettled and self._unsettled[0][1]:
            self.position = max(self.position, self._unsettled.popleft()[0])
            self._first_ticket += 1
        return self.position > before
