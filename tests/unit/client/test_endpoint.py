"""Where the gateway is, and what the MACs are bound to."""

from __future__ import annotations

from typing import Any

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
        ("ws://127.0.0.1:80/s", "127.0.0.1"),
        ("ws://127.0.0.1:4433/s", "127.0.0.1"),
        ("wss://[::1]:8443/s", "[::1]"),
    ],
)
def test_the_host_is_what_both_sides_sign(url: str, host: str) -> None:
    assert Endpoint(url).host == host


@pytest.mark.parametrize(
    "url",
    ["", "host", "http://host/s", "wss:///s", "wss://host:port/s", "wss://host:99999/s", "wss://host:0/s",
     "wss://[::1/s", "wss://user:secret@host/s", "wss:// /s", "wss://ho st/s", "wss://ho\u2028st/s", "wss://host\udcff/s",
     "wss://host/s?x=y", "wss://host/s#z"],
)  # fmt: skip
def test_what_is_no_gateway_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigError, match="take WebSocketUrl from the stack's outputs"):
        Endpoint(url)


@pytest.mark.parametrize("url", [None, b"wss://host/s", 5])
def test_what_is_no_text_is_no_gateway_either(url: Any) -> None:
    with pytest.raises(ConfigError, match="take WebSocketUrl from the stack's outputs"):
        Endpoint(url)


@pytest.mark.parametrize("url", ["WSS://host/s", "wsS://host/s"])
def test_a_scheme_is_one_in_any_case(url: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.url, endpoint.secure, endpoint.address) == ("wss://host/s", True, ("host", 443))


@pytest.mark.parametrize(
    "url",
    ["ws://abc.execute-api.eu-west-1.amazonaws.com/emissary", "WS://gateway.example/s", "ws://10.0.0.5/s",
     "ws://[fd00::1]/s", "ws://localhost.example/s", "ws://128.0.0.1/s", "ws://0.0.0.0/s"],
)  # fmt: skip
def test_nothing_is_sent_unencrypted_to_another_machine(url: str) -> None:
    """Who stands in between could pass the signed headers on over TLS, and read all bytes."""
    with pytest.raises(ConfigError, match=r"is not encrypted.* write wss://, as WebSocketUrl of the stack's"):
        Endpoint(url)


@pytest.mark.parametrize(
    "url",
    ["ws://127.0.0.1:1/s", "ws://127.9.9.9/s", "ws://[::1]:8080/s", "ws://LOCALHOST/s", "WS://localhost"],
)
def test_a_local_cloud_needs_no_tls(url: str) -> None:
    assert not Endpoint(url).secure


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
