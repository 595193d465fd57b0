"""The HTTP side: the routes of sockets and probes, the web page, and the checks on who may use them."""

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from opentelemetry.trace import TracerProvider
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from whisperline_runtime import tracing
from whisperline_runtime.probes import Probes

from whisperline_gateway.gateway import Gateway
from whisperline_gateway.http.websocket import serve_socket
from whisperline_gateway.protocol import protocols
from whisperline_gateway.protocol.messages import ClientProtocol

WEB = Path(__file__).parents[1] / "web"

_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
}


def create_app(gateway: Gateway, probes: Probes) -> FastAPI:
    """Return the application of an open gateway."""
    app = FastAPI(title="Whisperline gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(KnownHosts, listening_on=gateway.settings.host, allowed=gateway.settings.allowed_origins)
    app.add_middleware(SecurityHeaders)
    if tracing.is_on():
        app.add_middleware(HttpSpans)

    def add_socket(protocol: type[ClientProtocol]) -> None:
        async def serve(socket: WebSocket) -> None:
            await serve_socket(socket, protocol(), gateway.registry, gateway.services)

        app.add_api_websocket_route(protocol.path, serve)

    for protocol in protocols().values():
        add_socket(protocol)

    @app.get("/health/live")
    @app.get("/health/ready")
    @app.get("/metrics")
    async def probe(request: Request) -> Response:
        if request.url.path == "/health/ready":
            await gateway.update_problem()
        answer = probes.answer(request.url.path, request.headers.get("accept", ""))
        return Response(answer.body, answer.status, {"content-type": answer.content_type})

    if WEB.is_dir():
        app.mount("/", StaticFiles(directory=WEB, html=True), name="web")
    return app


class KnownHosts:
    """Refuses requests for hosts that are not ours, HTTP and WebSocket, with HTTP 403.

    Starlette's `TrustedHostMiddleware` needs a list of names. Here a gateway that listens on the loopback accepts only
    the loopback's own names and those of allowed origins; on any other address it accepts every name.
    """

    def __init__(self, app: ASGIApp, listening_on: str, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._listening_on = listening_on
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if is_host_allowed(Headers(scope=scope).get("host"), self._listening_on, self._allowed):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(WS_1008_POLICY_VIOLATION)
        else:
            await PlainTextResponse("This host is not served here.\n", 403)(scope, receive, send)


class SecurityHeaders:
    """Adds the headers that keep our page from loading foreign content, and foreign pages from embedding ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with headers added to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class HttpSpans:
    """Makes a span for each HTTP request, except probes. Sockets have the span of their connection instead."""

    def __init__(self, app: ASGIApp, tracer_provider: TracerProvider | None = None) -> None:
        # Imported here, so that a gateway without traces does not load it. Without `exclude_spans` it would make a span
        # for each chunk of a response.
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415

        self._app = app
        self._traced: ASGIApp = OpenTelemetryMiddleware(
            app,
            excluded_urls="/health/,/metrics",
            exclude_spans=["receive", "send"],
            tracer_provider=tracer_provider,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await (self._traced if scope["type"] == "http" else self._app)(scope, receive, send)


def is_host_allowed(host: str | None, listening_on: str, allowed: tuple[str, ...]) -> bool:
    """Return True if a request that names `host` is for us.

    On the loopback only its own names and those of allowed origins are: the origin check does not stop a foreign page
    whose name was made to point here ("DNS rebinding"), because its origin equals its host. On other addresses a
    gateway does not know its own names, so it accepts all.
    """
    if host is None or "*" in allowed or not _is_loopback(listening_on):
        return True
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return _is_loopback(name or "") or host.lower() in {urlsplit(origin).netloc.lower() for origin in allowed}


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
