"""Where the gateway is, and what the MACs are bound to."""

from __future__ import annotations

import pytest

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.exceptions import ConfigError


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (
            "wss://A1b2.execute-api.eu-central-1.amazonaws.com/prod",
            "a1b2.execute-api.eu-central-1.amazonaws.com",
        ),
        ("wss://host:443/s", "host"),
        ("ws://host:80/s", "host"),
        ("ws://127.0.0.1:4433/s", "127.0.0.1:4433"),
        ("wss://[::1]:8443/s", "[::1]:8443"),
    ],
)
def test_the_host_is_what_both_sides_sign(url: str, host: str) -> None:
    assert Endpoint(url).host == host


@pytest.mark.parametrize(
    "url",
    ["", "host", "http://host/s", "wss:///s", "wss://host:port/s", "wss://host:99999/s", "wss://host:0/s",
     "wss://[::1/s", "wss://user:secret@host/s"],
)  # fmt: skip
def test_what_is_no_gateway_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigError, match="take WebSocketUrl from the stack's outputs"):
        Endpoint(url)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (
            "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/emissary",
            "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/emissary",
        ),
        ("ws://127.0.0.1:4510/emissary/", "http://127.0.0.1:4510/emissary"),
    ],
)
def test_callbacks_are_at_the_api_s_own_address(url: str, endpoint: str) -> None:
    assert Endpoint(url).callback_url == endpoint


def test_a_tls_context_is_not_shown() -> None:
    assert "ssl_context" not in repr(Endpoint("wss://host/s"))
