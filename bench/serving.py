"""Compare the serving of Whisper with faster-whisper: speed, accuracy, mixed load, and the least possible time.

    make bench-serving                 # every part, about an hour on two cores
    make bench-serving PART=deployed   # one: like-for-like, sentences, deployed, mixed or floor

Every part writes its table to bench/results/serving-PART.md.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from comparison import deployed, like_for_like, sentences
from floor import floor
from mixed import mixed
from report import heading, say, write

PARTS: dict[str, tuple[str, str, Callable[[], Awaitable[list[str]]]]] = {
    "like-for-like": ("Like for like with faster-whisper", "30 s windows, greedy, no timestamps", like_for_like),
    "sentences": ("As deployed, beside faster-whisper", "16 requests at a time, recorded sentences", sentences),
    "deployed": ("As deployed, beside faster-whisper", "16 requests at a time, 2 to 28 s", deployed),
    "mixed": ("Live sentences beside files", "one live sentence every half second", mixed),
    "floor": ("The floor, and how far from it we are", "operations and bytes, counted", floor),
}


async def main() -> None:
    """Run the parts that the command line names, all by default."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - PARTS.keys():
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in chosen:
        title, what, measure = PARTS[part]
        say(f"{part}: {what}")
        lines = await measure()
        write(f"serving-{part}", heading(title, f"make bench-serving PART={part}") + lines)


if __name__ == "__main__":
    asyncio.run(main())
