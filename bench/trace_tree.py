"""Print the trace of one sentence as a tree: each step with its process, start and duration.

    make trace                    # the demo's sentence; the tree can be pasted into a document

The stack runs with traces on, and sends them to a receiver in this process.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from otlp import Receiver, Span, receiving
from report import console
from stacks import local_settings
from whisperline_client import AudioFile, Client, Closed, Event, Final
from whisperline_local import Stack
from whisperline_local.assets import demo_speech

TRACED = ("gateway", "transcriber", "triton", "persistence")
NAME_WIDTH = 44
# The attributes that distinguish a span from its siblings.
SHOWN = ("whisperline.lane", "messaging.destination.name", "messaging.kafka.offset", "whisperline.segment.index")


async def main() -> None:
    """Stream the demo's clip through a stack with traces, and print the trace of its last segment."""
    with receiving() as receiver, tempfile.TemporaryDirectory() as state:
        services = dict.fromkeys(TRACED, receiver.environment)
        settings = local_settings(Path(state), name="bench trace", gateways=1, service_env=services)
        async with Stack(settings) as stack:
            clip = AudioFile.open(await demo_speech(settings))
            await stream(stack, clip)  # warm-up, because the first request to a process is slower than all others
            finals, session_id = await stream(stack, clip)
            last = {"whisperline.session.id": session_id, "whisperline.segment.index": finals[-1].segment_index}
            await receiver.until(partial(is_stored, receiver, last), "the span of the row")
        (segment,) = receiver.named("segment", last)
        console.print("\n".join(tree(receiver.trace(segment.context.trace_id))), markup=False)


async def stream(stack: Stack, clip: AudioFile) -> tuple[list[Final], str]:
    """Stream a clip in real time. Return its finals and the id of its session."""
    events: list[Event] = []
    async with Client(stack.gateway_urls).stream(clip.live(), clip.options(language="en")) as came:
        events = [event async for event in came]
    assert isinstance(events[-1], Closed)
    return [event for event in events if isinstance(event, Final)], events[-1].session_id


def is_stored(receiver: Receiver, segment: dict[str, object]) -> bool:
    """Return True once the spans that end last have arrived."""
    return all(receiver.named(name, segment) for name in ("segment", "store final"))


def tree(spans: list[Span]) -> Iterator[str]:
    """Yield a line for each span: its start after that of the first span, its duration, and its place in the tree."""
    began_ns = min(span.start_ns for span in spans)
    known = {span.context.span_id for span in spans}
    yield f"{'at, ms':>8} {'took, ms':>9}  span"

    def lines(span: Span, depth: int) -> Iterator[str]:
        shown = " ".join(f"{key.rpartition('.')[2]}={span.attributes[key]}" for key in SHOWN if key in span.attributes)
        name = f"{'  ' * depth}{span.name}  [{span.service}]"
        at_ms, took_ms = ((span.start_ns - began_ns) / 1e6, (span.end_ns - span.start_ns) / 1e6)
        yield f"{at_ms:8.1f} {took_ms:9.1f}  {name:<{NAME_WIDTH}}  {shown}".rstrip()
        for child in spans:
            if child.parent_id == span.context.span_id:
                yield from lines(child, depth + 1)

    for span in spans:
        if span.parent_id not in known:
            yield from lines(span, 0)


if __name__ == "__main__":
    asyncio.run(main())
