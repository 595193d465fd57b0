"""Run compose/otelcol.yaml in a real collector: which traces it keeps, and what it makes of the containers' logs."""

import gzip
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from socket import create_server
from threading import Thread
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    TraceServiceStub,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

CHECKOUT = Path(__file__).parents[2]
CONFIGURATION = CHECKOUT / "compose/otelcol.yaml"
OTELCOL = CHECKOUT / ".tools/collector/otelcol"  # by `make test-otelcol`
START_LIMIT_S = 30.0
ARRIVAL_LIMIT_S = 30.0

pytestmark = pytest.mark.skipif(not OTELCOL.is_file(), reason="the collector is not built: `make test-otelcol` does")


def settings(folder: Path, **ports: int) -> list[str]:
    """Return the arguments that replace the addresses and folders of the containers by those of this test."""
    (folder / "storage").mkdir(exist_ok=True)
    (folder / "containers").mkdir(exist_ok=True)
    moved = {
        "extensions::file_storage::directory": str(folder / "storage"),
        "extensions::health_check::endpoint": f"127.0.0.1:{ports.get('health', 13133)}",
        "receivers::file_log::include": f"[{folder}/containers/*/*-json.log]",
        "receivers::otlp::protocols::grpc::endpoint": f"127.0.0.1:{ports.get('otlp', 4317)}",
        "exporters::otlp_grpc/tempo::endpoint": f"127.0.0.1:{ports.get('tempo', 4319)}",
        "exporters::otlp_http/loki::endpoint": f"http://127.0.0.1:{ports.get('loki', 3100)}/otlp",
        "processors::tail_sampling::decision_wait": "1s",
    }
    return [f"--config={CONFIGURATION}", *(f"--config=yaml:{key}: {value}" for key, value in moved.items())]


def validate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `otelcol validate`."""
    return subprocess.run((OTELCOL, "validate", *arguments), capture_output=True, text=True, check=False)


def test_the_collector_accepts_the_configuration(tmp_path: Path) -> None:
    """`validate` accepts the file, with the folders of its container replaced."""
    found = validate(*settings(tmp_path))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("processors::tail_sampling::decision_weight: 1s", "decision_weight"),
        ("exporters::otlp_grpc/tempo::tls::unsecure: true", "unsecure"),
        ("service::pipelines::traces::processors: [tail_sampling, missing]", "missing"),
    ],
)
def test_the_collector_refuses_a_wrong_configuration(wrong: str, named: str, tmp_path: Path) -> None:
    """A key or a component that does not exist ends `validate` with an error that names it."""
    found = validate(*settings(tmp_path), f"--config=yaml:{wrong}")
    assert found.returncode != 0
    assert named in found.stderr


def free_port() -> int:
    """Return a port that nothing listens on."""
    with create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Tempo(TraceServiceServicer):
    """Receives the traces that the collector keeps."""

    def __init__(self) -> None:
        self.spans: SimpleQueue[Span] = SimpleQueue()

    def Export(  # noqa: N802 - the name in the protocol
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Receive a request."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return ExportTraceServiceResponse()


class Loki(BaseHTTPRequestHandler):
    """Receives the logs that the collector reads."""

    lines: SimpleQueue[tuple[dict[str, str], LogRecord]] = SimpleQueue()

    def do_POST(self) -> None:
        """Receive a request."""
        assert self.path == "/otlp/v1/logs"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    self.lines.put((values(resource.resource.attributes), record))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportLogsServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names them
        """Log nothing."""


def values(attributes: Any) -> dict[str, str]:
    """Return attributes as text by name."""
    return {each.key: each.value.string_value or str(each.value.int_value) for each in attributes}


@contextmanager
def collector(folder: Path, sampled_percent: int, **stores: int) -> Iterator[int]:
    """Run the collector; yield the port of its OTLP receiver. At the end it sends everything that it still has."""
    ports = {"otlp": free_port(), "health": free_port()}
    process = subprocess.Popen(
        (OTELCOL, *settings(folder, **ports, **stores)),
        env=os.environ | {"SAMPLED_PERCENT": str(sampled_percent)},
        stderr=(folder / "collector.log").open("w"),
    )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not healthy(ports["health"]):
            said = (folder / "collector.log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
        yield ports["otlp"]
    finally:
        process.terminate()
        process.wait(ARRIVAL_LIMIT_S)


def healthy(port: int) -> bool:
    """Return whether the collector says that it runs."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False


def span(name: str, seconds: float, *, failed: bool = False, **attributes: str) -> Span:
    """Return a span that ends now; with the attribute `lane` it is the transcriber's request to Triton."""
    now = time.time_ns()
    return Span(
        span_id=os.urandom(8),
        name=name,
        kind=Span.SPAN_KIND_CLIENT if "lane" in attributes else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=now - int(seconds * 1e9),
        end_time_unix_nano=now,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        attributes=[
            KeyValue(key=f"whisperline.{key}", value=AnyValue(string_value=value)) for key, value in attributes.items()
        ],
    )


SEND, SEGMENT, DECODE = (
    span("audio_chunks send", 0.02),
    span("segment", 6.0),
    span("decode", 0.3, lane="final"),
)
TRACES: dict[str, list[Span]] = {
    "usual": [SEND, SEGMENT, DECODE, span("transcriptions send", 0.01), span("store final", 0.05)],
    "slow at Triton": [SEND, SEGMENT, span("decode", 2.5, lane="final")],
    "slow at Kafka": [SEND, SEGMENT, DECODE, span("transcriptions send", 1.5)],
    "slow at PostgreSQL": [SEND, SEGMENT, DECODE, span("store final", 7.0)],
    "slow altogether": [SEND, span("segment", 40.0), DECODE],
    "failed": [SEND, SEGMENT, span("decode", 0.1, failed=True, lane="final")],
    "a file that waited": [SEND, SEGMENT, span("decode", 20.0, lane="file"), span("decode", 5.0)],
    "audio without speech": [SEND],
    "audio that was not durable": [span("audio_chunks send", 0.02, failed=True)],
    "a connection of an hour": [span("listen", 3600.0)],
}
SLOW_OR_FAILED = {
    "slow at Triton",
    "slow at Kafka",
    "slow at PostgreSQL",
    "slow altogether",
    "failed",
    "audio that was not durable",
}


def kept(folder: Path, sampled_percent: int, wanted: int) -> set[str]:
    """Send all traces through the collector, and return those that it passes on once `wanted` have come."""
    ids = {name: os.urandom(16) for name in TRACES}
    spans = []
    for name, trace in TRACES.items():
        for each in trace:
            copy = Span()
            copy.CopyFrom(each)
            copy.trace_id = ids[name]
            spans.append(copy)
    tempo = Tempo()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    add_TraceServiceServicer_to_server(tempo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    seen: set[bytes] = set()
    try:
        with collector(folder, sampled_percent, tempo=port) as otlp, grpc.insecure_channel(f"127.0.0.1:{otlp}") as to:
            stub = TraceServiceStub(to)
            stub.Export(
                ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
            )
            while len(seen) < wanted:
                seen.add(tempo.spans.get(timeout=ARRIVAL_LIMIT_S).trace_id)
        while not tempo.spans.empty():  # the collector has sent all that it had
            seen.add(tempo.spans.get().trace_id)
    finally:
        server.stop(None)
    return {name for name, trace_id in ids.items() if trace_id in seen}


def test_slow_and_failed_segments_are_kept(tmp_path: Path) -> None:
    """With a share of 0 % the collector keeps exactly the traces in which a hop was slow or failed."""
    assert kept(tmp_path, 0, len(SLOW_OR_FAILED)) == SLOW_OR_FAILED


def test_audio_without_a_segment_is_dropped(tmp_path: Path) -> None:
    """With a share of 100 % it keeps every trace except audio in which nobody spoke."""
    assert kept(tmp_path, 100, len(TRACES) - 1) == set(TRACES) - {"audio without speech"}


TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def docker_line(text: str, project: str = "whisperline", service: str = "gateway") -> str:
    """Return a line as Docker's driver json-file writes it."""
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    line = {"log": f"{text}\n", "stream": "stderr", "attrs": labels, "time": "2026-12-01T10:11:12.123456789Z"}
    return json.dumps(line) + "\n"


def read(folder: Path, lines: str, wanted: int) -> list[tuple[dict[str, str], LogRecord]]:
    """Let the collector read lines of a container, and return what reaches Loki once `wanted` lines have."""
    container = folder / "containers/0123"
    container.mkdir(parents=True)
    (container / "0123-json.log").write_text(lines)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Loki)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with collector(folder, 0, loki=server.server_port):
            found = [Loki.lines.get(timeout=ARRIVAL_LIMIT_S) for _ in range(wanted)]
        while not Loki.lines.empty():
            found.append(Loki.lines.get())
    finally:
        server.shutdown()
        server.server_close()
    return found


def test_a_line_of_ours_leads_to_its_trace(tmp_path: Path) -> None:
    """The message becomes the body, trace, severity and service become fields of the record, ids become attributes."""
    ours = {"event": "session resumed", "level": "warning", "service": "whisperline-gateway", "session_id": "s-1"}
    line = docker_line(json.dumps(ours | {"trace_id": TRACE_ID, "span_id": SPAN_ID}))
    ((resource, record),) = read(tmp_path, line, 1)
    assert record.body.string_value == "session resumed"
    assert (record.trace_id.hex(), record.span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert record.severity_number == 13  # WARN
    assert record.time_unix_nano == 1_796_119_872_123_456_789
    assert resource == {"service.name": "whisperline-gateway", "service.namespace": "whisperline"}
    assert values(record.attributes)["session_id"] == "s-1"


def test_lines_of_other_programs_are_kept_as_they_are(tmp_path: Path) -> None:
    """A line of Kafka, PostgreSQL or Triton stays text, under the name of its service in compose.yaml."""
    ((resource, record),) = read(tmp_path, docker_line("I1201 model.cc] started", service="triton-cpu"), 1)
    assert record.body.string_value.rstrip() == "I1201 model.cc] started"
    assert resource["service.name"] == "triton-cpu"


def test_lines_of_other_projects_are_not_read(tmp_path: Path) -> None:
    """Lines of other projects' containers on the same machine are dropped, with or without labels."""
    other = docker_line("a secret of somebody else", project="shop")
    bare = json.dumps({"log": "another\n", "stream": "stdout", "time": "2026-12-01T10:11:12.1Z"}) + "\n"
    found = read(tmp_path, other + bare + docker_line("ours"), 1)
    assert [record.body.string_value.rstrip() for _, record in found] == ["ours"]
