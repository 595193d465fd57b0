"""Who may connect from a browser."""

import pytest
from whisperline_gateway.app import origin_allowed


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
    assert origin_allowed(origin, "gateway:8080", allowed) is expected
