"""What a client asks of its session, and the URL that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlencode, urlsplit

DEFAULT_URL = "ws://127.0.0.1:8080"
BYTES_PER_SAMPLE = 2  # linear16
_WEBSOCKET_SCHEME = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True)
class ListenOptions:
    """The query of `/v1/listen`. None leaves a choice to the gateway."""

    sample_rate: int = 16_000  # Hz, 8,000 to 48,000
    channels: int = 1
    language: str | None = None
    interim_results: bool = True
    vad_events: bool = True
    endpointing_ms: int | None = None
    utterance_end_ms: int | None = None
    priority: Literal["live", "file"] = "live"
    client_id: str | None = None

    @property
    def frame_bytes(self) -> int:
        """The bytes of one sample of all channels."""
        return BYTES_PER_SAMPLE * self.channels

    def query(self) -> dict[str, str]:
        """Return the query parameters, with acknowledgements on."""
        values = {
            "encoding": "linear16",
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "language": self.language,
            "interim_results": str(self.interim_results).lower(),
            "vad_events": str(self.vad_events).lower(),
            "endpointing": self.endpointing_ms,
            "utterance_end_ms": self.utterance_end_ms,
            "priority": self.priority,
            "client_id": self.client_id,
            "acks": "true",
        }
        return {name: str(value) for name, value in values.items() if value is not None}


def listen_url(gateway_url: str, query: Mapping[str, str]) -> str:
    """Return the WebSocket URL of `/v1/listen`; `gateway_url` may be ws, wss, http or https, with a path.

    Raises ValueError, saying what a URL should look like.
    """
    parts = urlsplit(gateway_url if "://" in gateway_url else f"ws://{gateway_url}")
    scheme = _WEBSOCKET_SCHEME.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{gateway_url!r} is no gateway's URL; one looks like {DEFAULT_URL}")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v1/listen?{urlencode(query)}"


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine: then no proxy may stand between."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
