"""The HTTP side: the socket's route, health, metrics and the page."""

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from whisperline_gateway.errors import ClientError, CloseCode
from whisperline_gateway.gateway import Gateway
from whisperline_gateway.query import ListenRequest, parse_query
from whisperline_gateway.session import Session
from whisperline_gateway.wire import refuse

WEB = Path(__file__).parent / "web"

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


def create_app(gateway: Gateway) -> FastAPI:
    """Return the application of a gateway that is open."""
    app = FastAPI(title="Whisperline gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(KnownHosts, listening_on=gateway.settings.host, allowed=gateway.settings.allowed_origins)
    app.add_middleware(SecurityHeaders)

    @app.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        await serve_socket(socket, gateway)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready(response: Response) -> dict[str, str]:
        if await gateway.ready():
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "draining" if gateway.draining else "Kafka does not answer"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    if WEB.is_dir():
        app.mount("/", StaticFiles(directory=WEB, html=True), name="web")
    return app


async def serve_socket(socket: WebSocket, gateway: Gateway) -> None:
    """Serve one socket of `/v1/listen`. A page of a foreign origin is refused before the handshake (HTTP 403)."""
    if not origin_allowed(socket.headers.get("origin"), socket.headers.get("host"), gateway.settings.allowed_origins):
        await socket.close(CloseCode.POLICY)
        return
    request = _request(socket)
    resume = None if isinstance(request, ClientError) else request.resume
    session_id = resume.session_id if resume else str(uuid4())
    # Deepgram's SDKs read this header, and in a browser offer their key as a subprotocol after "token".
    header = [(b"dg-request-id", session_id.encode())]
    await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None), headers=header)
    try:
        if isinstance(request, ClientError):
            raise request
        await Session(socket, request, gateway, session_id).run()
    except ClientError as failure:
        await refuse(socket, failure)


def _request(socket: WebSocket) -> ListenRequest | ClientError:
    """Read the query; an error of it is told when the socket is open, as a browser sees nothing of the handshake."""
    try:
        return parse_query(socket.query_params)
    except ClientError as failure:
        return failure


def origin_allowed(origin: str | None, host: str | None, allowed: tuple[str, ...]) -> bool:
    """Whether a browser's page of `origin` may connect: one of ours, or one that the settings name."""
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return host is not None and urlsplit(origin).netloc.lower() == host.lower()


def host_allowed(host: str | None, listening_on: str, allowed: tuple[str, ...]) -> bool:
    """Whether a request that names `host` is for us.

    On the loopback only its own names are, and those of allowed origins: a foreign page whose name was made to point
    here ("DNS rebinding") has an origin equal to its host. Elsewhere a gateway does not know its names.
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


class KnownHosts:
    """Refuses requests for hosts that are not ours, HTTP and WebSocket, with HTTP 403."""

    def __init__(self, app: ASGIApp, listening_on: str, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._listening_on = listening_on
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if host_allowed(Headers(scope=scope).get("host"), self._listening_on, self._allowed):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(CloseCode.POLICY)
        else:
            await PlainTextResponse("This host is not served here.\n", 403)(scope, receive, send)


class SecurityHeaders:
    """Adds the headers that keep a page from loading, or being loaded by, anything foreign."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with headers added to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
