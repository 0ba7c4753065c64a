"""Origin checks of requests from pages."""

from __future__ import annotations

import pytest

from fastrtc_anyio.server.access import check_origins, is_allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "verdict"),
    [
        (None, "example.com", [], True),
        ("https://example.com", "example.com", [], True),
        ("https://example.com", "Example.com:443", [], True),
        ("http://example.com:7860", "example.com:7860", [], True),
        ("http://example.com:7860", "example.com", [], False),
        ("https://example.com.evil.org", "example.com", [], False),
        ("null", "example.com", [], False),
        ("", "", [], False),
        ("https://other.org", "example.com", ["https://OTHER.org"], True),
        ("http://other.org", "example.com", ["https://other.org"], False),
        ("null", "example.com", ["*"], True),
    ],
)
def test_origin_is_allowed_if_same_or_listed(
    origin: str | None, host: str, allowed: list[str], verdict: bool
) -> None:
    assert is_allowed(origin, host, check_origins(allowed)) is verdict


def test_invalid_allowed_origins_are_rejected() -> None:
    for wrong in (["example.com"], ["https://example.com/"], ["https://"]):
        with pytest.raises(ValueError, match="allowed_origins"):
            check_origins(wrong)
    with pytest.raises(TypeError, match="must be a list of origins"):
        check_origins("https://example.com")
