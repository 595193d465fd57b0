"""How long to wait between attempts at something that is away."""

import random
from collections.abc import Iterator


def delays_s(first_s: float = 0.1, cap_s: float = 5.0) -> Iterator[float]:
    """Yield delays without end: doubling from `first_s` to `cap_s`, each shortened at random by up to half.

    The jitter keeps replicas that lost the same database from coming back to it at the same moment.
    """
    delay_s = first_s
    while True:
        yield delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        delay_s = min(delay_s * 2, cap_s)
