"""Pages of foreign origins and hosts that are not ours are refused."""

import pytest
from whisperline_gateway.http.app import is_host_allowed
from whisperline_gateway.http.websocket import is_origin_allowed


@pytest.mark.parametrize(
    ("origin", "allowed", "expected"),
    [
        (None, (), True),
        ("http://gateway:8080", (), True),
        ("https://GATEWAY:8080", (), True),
        ("http://evil.example", (), False),
        ("http://gateway:9999", (), False),
        ("null", (), False),
        ("https://app.example", ("https://app.example",), True),
        ("http://evil.example", ("https://app.example",), False),
        ("http://evil.example", ("*",), True),
    ],
)
def test_a_foreign_page_may_not_connect_unless_it_is_named(
    origin: str | None, allowed: tuple[str, ...], expected: bool
) -> None:
    """A page of another origin is refused; a program, which sends none, is not."""
    assert is_origin_allowed(origin, "gateway:8080", allowed) is expected


@pytest.mark.parametrize(
    ("host", "listening_on", "allowed", "expected"),
    [
        ("127.0.0.1:8080", "127.0.0.1", (), True),
        ("127.0.0.1:9000", "127.0.0.1", (), True),
        ("localhost", "127.0.0.1", (), True),
        ("LOCALHOST:8080", "127.0.0.1", (), True),
        ("[::1]:8080", "::1", (), True),
        (None, "127.0.0.1", (), True),
        ("evil.example:8080", "127.0.0.1", (), False),
        ("evil.example", "localhost", (), False),
        ("127.0.0.1.evil.example", "127.0.0.1", (), False),
        ("[evil", "127.0.0.1", (), False),
        ("", "127.0.0.1", (), False),
        ("speech.example", "127.0.0.1", ("https://speech.example",), True),
        ("evil.example", "127.0.0.1", ("*",), True),
        ("evil.example", "0.0.0.0", (), True),  # noqa: S104
        ("speech.example", "10.0.0.7", (), True),
    ],
)
def test_on_the_loopback_only_its_own_names_are_served(
    host: str | None, listening_on: str, allowed: tuple[str, ...], expected: bool
) -> None:
    """A name that was made to point at the loopback is refused there; behind an Ingress every name is served."""
    assert is_host_allowed(host, listening_on, allowed) is expected
