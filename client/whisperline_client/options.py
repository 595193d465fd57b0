"""The options of a session, and the URL that carries them to a gateway."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypedDict
from urllib.parse import urlencode, urlsplit

DEFAULT_URL = "ws://127.0.0.1:8080"
BYTES_PER_SAMPLE = 2  # linear16
WEBSOCKET_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True)
class ListenOptions:
    """The query of `/v1/listen`. For an option that is None the gateway's default holds.

    `languages` are those that may be spoken, from which the model chooses; they replace `language`. `keyterms` are
    words and phrases to expect.
    """

    sample_rate: int = 16_000  # Hz, 8,000 to 48,000
    channels: int = 1
    language: str | None = None
    languages: Sequence[str] = ()
    keyterms: Sequence[str] = ()
    interim_results: bool = True
    vad_events: bool = True
    endpointing_ms: int | None = None
    utterance_end_ms: int | None = None
    priority: Literal["live", "file"] = "live"
    client_id: str | None = None

    @property
    def frame_bytes(self) -> int:
        """The number of bytes of one sample on all channels."""
        return BYTES_PER_SAMPLE * self.channels

    def query(self) -> dict[str, str | list[str]]:
        """Return the query parameters, always with `acks=true`: a session can be resumed only with acknowledgements."""
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
        query: dict[str, str | list[str]] = {name: str(value) for name, value in values.items() if value is not None}
        # Parameters that are repeated; without values they are left out.
        return query | {"detect_language": list(self.languages), "keyterm": list(self.keyterms)}


class ListenChoices(TypedDict, total=False):
    """The options that do not describe the audio, as keyword arguments."""

    language: str | None
    languages: Sequence[str]
    keyterms: Sequence[str]
    interim_results: bool
    vad_events: bool
    endpointing_ms: int | None
    utterance_end_ms: int | None
    priority: Literal["live", "file"]
    client_id: str | None


def listen_url(gateway_url: str, query: Mapping[str, str | list[str]]) -> str:
    """Return the WebSocket URL of `/v1/listen` at a gateway.

    `gateway_url` may begin with ws, wss, http, https or no scheme, and may have a path. Raises ValueError, with an
    example of a valid URL, for anything else. A parameter with a list of values is repeated.
    """
    parts = urlsplit(gateway_url if "://" in gateway_url else f"ws://{gateway_url}")
    scheme = WEBSOCKET_SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{gateway_url!r} is not the URL of a gateway; one looks like {DEFAULT_URL}")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v1/listen?{urlencode(query, doseq=True)}"


def is_loopback(url: str) -> bool:
    """Return True if the URL names this machine; a proxy would look for it on its own machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
