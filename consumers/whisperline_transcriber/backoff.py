"""How long to wait between attempts at something that is away."""

from collections.abc import Iterator
from itertools import chain, repeat


def delays_s() -> Iterator[float]:
    """Yield delays without end."""
    return chain((0.1, 0.2, 0.5, 1.0), repeat(2.0))
