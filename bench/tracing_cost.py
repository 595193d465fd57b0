"""Measure the cost of tracing where it is paid most often: for each record of audio.

    make bench-tracing

This times a copy of the calls that gateway and transcriber make, not the processes themselves: `make bench-footprint`
does that. A live stream makes about ten records a second; a segment makes some twenty spans. Each mode runs in a
process of its own, because OpenTelemetry's provider cannot be taken back: `off` is a process without `OTEL_…`
variables, `on` one that exports to a collector that does not answer. The table goes to bench/results/tracing.md.
"""

import os
import subprocess
import sys

from report import heading, table, write

RECORDS_PER_S = 10  # of a live stream: the gateway gathers audio for 40 ms, and Kafka's producer lingers

MEASURED = """
import timeit
from whisperline_runtime import tracing
from whisperline_runtime.tracing import SpanKind

TRACER = tracing.tracer("bench")
NUMBER = 20_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

def send() -> None:  # what the gateway does for a record
    traceparent = None
    if tracing.is_on():
        span = TRACER.start_span("audio_chunks send", kind=SpanKind.PRODUCER)
        if span.is_recording():
            span.set_attributes({"messaging.system": "kafka", "whisperline.session.id": "s"})
        traceparent = tracing.traceparent_of(span)
        span.end()
    assert traceparent is None or traceparent.startswith("00-")

def decode() -> None:  # what the transcriber does for a request to Triton
    with TRACER.start_as_current_span("decode", tracing.context_of(PARENT), kind=SpanKind.CLIENT) as span:
        if span.is_recording():
            span.set_attribute("whisperline.lane", "final")
        tracing.current_traceparent()

with tracing.configured("bench"):
    for work in (send, decode):
        print(min(timeit.repeat(work, number=NUMBER, repeat=5)) / NUMBER * 1e6)
"""


def microseconds(environment: dict[str, str]) -> list[float]:
    """Return the time of a record and of a request, µs each, in a process with these variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], env={**inherited, **environment}, check=True, capture_output=True, text=True
    )
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Measure both modes and write the table."""
    off = microseconds({})
    on = microseconds({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_EXPORT_TIMEOUT": "100"})
    rows = [
        [name, f"{before:.2f}", f"{after:.1f}"]
        for name, before, after in zip(("a record of audio", "a request to Triton"), off, on, strict=True)
    ]
    shares = [f"{microseconds_each * RECORDS_PER_S / 1e6:.5%}" for microseconds_each in (off[0], on[0])]
    rows.append(["of a core, for the records of one live stream", *shares])
    write("tracing", heading("The cost of tracing", "make bench-tracing") + table(["µs each", "off", "on"], rows))


if __name__ == "__main__":
    main()
