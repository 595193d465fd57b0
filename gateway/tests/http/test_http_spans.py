"""Requests have spans, probes and sockets have none from here."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from whisperline_gateway.http.app import HttpSpans


async def answer(_: Request) -> Response:
    return PlainTextResponse("ok")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    for _ in range(3):
        await socket.send_text(await socket.receive_text())
    await socket.close()


def test_one_span_for_each_request_and_none_for_a_sockets_messages() -> None:
    """A connection has a span of its own, and a probe every few seconds is not worth one."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    routes = [Route(path, answer) for path in ("/", "/health/live", "/health/ready", "/metrics")]
    client = TestClient(HttpSpans(Starlette(routes=[*routes, WebSocketRoute("/v1/listen", talk)]), provider))
    for path in ("/", "/health/live", "/health/ready", "/metrics"):
        assert client.get(path).status_code == 200
    with client.websocket_connect("/v1/listen") as socket:
        for _ in range(3):
            socket.send_text("word")
            assert socket.receive_text() == "word"
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /"]
