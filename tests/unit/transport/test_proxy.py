"""Proxies: which one the environment means, and the way through real ones."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from emissary_lib.exceptions import ConfigError, GatewayUnreachableError, PackageError
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.proxy import EXCEPTIONS, VARIABLES, find_proxy
from emissary_lib.transport.trust import client_context
from emissary_lib.transport.websocket import connect
from tests.helpers.patience import HANG
from tests.helpers.proxies import Greeting, RunningProxy, http_proxy, proxy_to, socks5_proxy
from tests.helpers.ws_server import WsServer

URL = "wss://gateway.example/stage"


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("HTTP://proxy.corp:3128/", "http://proxy.corp:3128"),
        ("proxy.corp", "http://proxy.corp:80"),
        ("http://me:se%40cret@proxy.corp:8080", "http://me:***@proxy.corp:8080"),
        ("me:secret@proxy.corp:8080", "http://me:***@proxy.corp:8080"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
        ("socks5://proxy.corp", "socks5://proxy.corp:1080"),
        ("socks5h://proxy.corp:9050", "socks5h://proxy.corp:9050"),
        ("socks://proxy.corp", "socks5://proxy.corp:1080"),
        ("socks4a://proxy.corp", "socks4a://proxy.corp:1080"),
        (" ", None),
    ],
)
def test_a_variable_means_what_it_means_to_curl(value: str, means: str | None) -> None:
    found = find_proxy(URL, {"https_proxy": value})
    assert (str(found) if found else None) == means


def test_credentials_are_decoded_and_never_shown() -> None:
    found = find_proxy(URL, {"https_proxy": "http://me:se%40cret@proxy.corp:8080"})
    assert found
    assert (found.user, found.password) == ("me", "se@cret")
    assert "cret" not in repr(found) + str(found)


@pytest.mark.parametrize("order", [VARIABLES[True]])
def test_the_first_variable_that_is_there_counts_even_if_it_is_empty(order: tuple[str, ...]) -> None:
    environ = {name: f"{name}.corp:1" for name in order}
    for name in order:
        found = find_proxy(URL, environ)
        assert found
        assert (found.variable, found.host) == (name, f"{name}.corp".lower())
        assert find_proxy(URL, {**environ, name: ""}) is None
        del environ[name]
    assert find_proxy(URL, {**environ, "http_proxy": "proxy.corp:1"}) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://me:secret@proxy.corp", r"https_proxy names a proxy to which TLS is spoken"),
        ("ftp://me:secret@proxy.corp", r"https_proxy: proxies of the kind ftp:// are not supported"),
        ("http://me:secret@proxy.corp:x", "https_proxy is no URL of a proxy; want http://host:port"),
        ("http://", "https_proxy is no URL of a proxy"),
        ("http://me:secret@proxy.corp:3128 # ours", "https_proxy is no URL of a proxy"),
        ("http://me:secret@[::1", "https_proxy is no URL of a proxy"),
        ("http://proxy.corp:0", "https_proxy is no URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_no_password_shown(value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        find_proxy(URL, {"https_proxy": value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "x.localhost"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    environ = {name: "proxy.corp:1" for names in VARIABLES.values() for name in names}
    assert find_proxy(f"ws://{host}:4510/x", environ) is None
    assert find_proxy(f"wss://{host}/x", environ) is None


@pytest.mark.parametrize("name", EXCEPTIONS)
@pytest.mark.parametrize(
    ("url", "excepted", "direct"),
    [
        (URL, "*", True),
        (URL, "gateway.example", True),
        (URL, "GATEWAY.example.", True),
        (URL, "other, .example", True),
        (URL, "example", True),
        (URL, "*.example", True),
        (URL, "ample", False),
        (URL, "gateway.example:443", True),
        (URL, "gateway.example:8443", False),
        ("wss://gateway.example:8443/s", "gateway.example:8443", True),
        (URL, "10.0.0.0/8", False),
        ("wss://10.1.2.3/s", "10.0.0.0/8", True),
        ("wss://10.1.2.3/s", "10.1.2.3", True),
        ("wss://10.1.2.3/s", "11.0.0.0/8 3", False),
        ("wss://[2001:db8::1]/s", "2001:db8::/32", True),
        ("wss://[2001:db8::1]/s", "[2001:db8::1]", True),
        ("wss://[2001:db8::1]/s", "[2001:db8::1]:443", True),
        (URL, "", False),
    ],
)
def test_exceptions_are_names_domains_ports_and_networks(
    name: str, url: str, excepted: str, direct: bool
) -> None:
    assert (find_proxy(url, {"https_proxy": "proxy.corp:1", name: excepted}) is None) is direct


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def gateway(authority: trustme.CA) -> Iterator[WsServer]:
    """One that only the proxy can find, with a certificate for its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("gateway.example").configure_cert(context)
    with WsServer(ssl_context=context) as server:
        yield server


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return client_context(str(file))


def through(
    greet: Greeting,
    value: str,
    gateway: WsServer,
    trusted: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> RunningProxy:
    for names in (*VARIABLES.values(), EXCEPTIONS):
        for name in names:
            monkeypatch.delenv(name, raising=False)
    with proxy_to(gateway.port, greet) as proxy:
        monkeypatch.setenv("https_proxy", value.replace("PORT", str(proxy.port)))
        transport = connect(URL, headers={}, deadline=Deadline(HANG), ssl_context=trusted)
        transport.abort()
        transport.release()
    return proxy


@pytest.mark.parametrize(
    ("greet", "value"),
    [
        (http_proxy(), "127.0.0.1:PORT"),
        (http_proxy("me", "se@cret"), "http://me:se%40cret@127.0.0.1:PORT"),
        (socks5_proxy, "socks5h://127.0.0.1:PORT"),
    ],
    ids=["http", "basic", "socks5"],
)
def test_a_gateway_is_reached_through_a_proxy_with_its_own_name_and_tls(
    greet: Greeting,
    value: str,
    gateway: WsServer,
    trusted: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = through(greet, value, gateway, trusted, monkeypatch)
    assert proxy.asked == ["gateway.example:443"]
    assert gateway.requests[0].headers["host"] == "gateway.example"


@pytest.mark.parametrize(
    ("greet", "value", "says"),
    [
        (http_proxy("me", "x"), "127.0.0.1:PORT", "wants a user and a password: write http://user:password@"),
        (http_proxy("me", "x"), "me:secret@127.0.0.1:PORT", "did not accept the user and password"),
        (
            http_proxy(refusal=b"HTTP/1.0 403 Not \x1b[1mhere\r\n\r\n"),
            "127.0.0.1:PORT",
            r"refused a connection to gateway\.example:443: 403 Not .*here; ask whoever",
        ),
        (http_proxy(refusal=b"\x05\xff\r\n"), "127.0.0.1:PORT", "speaks no HTTP; check https_proxy"),
        (
            http_proxy(refusal=b""),
            "http://127.0.0.1:1",
            "through the proxy http://127.0.0.1:1 .https_proxy.: .*; check https_proxy, the URL",
        ),
        (http_proxy(), "socks5h://127.0.0.1:1", "the proxy socks5h://127.0.0.1:1 .https_proxy. gives no way"),
    ],
)
def test_a_proxy_that_gives_no_way_is_named_with_what_to_do(
    greet: Greeting,
    value: str,
    says: str,
    gateway: WsServer,
    trusted: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(GatewayUnreachableError, match=says) as caught:
        through(greet, value, gateway, trusted, monkeypatch)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert gateway.requests == []


def test_a_proxy_that_says_nothing_does_not_outlast_the_deadline(
    gateway: WsServer, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WsServer(raw=lambda sock: silent.wait_closing()) as silent:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{silent.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(TimeoutError):
            connect(URL, headers={}, deadline=Deadline(0.2), ssl_context=trusted)


def test_a_socks_proxy_without_its_package_names_the_extra(
    gateway: WsServer, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(PackageError, match=r"https_proxy names a SOCKS proxy.*emissary-lib\[socks\]"):
        through(http_proxy(), "socks5://127.0.0.1:PORT", gateway, trusted, monkeypatch)
